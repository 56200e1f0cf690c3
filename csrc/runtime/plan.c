/* The stripe plan: its records, and the proof that every tile of every image reads what it wrote.
 *
 * Regions are offsets from a tile that all tiles share, clamped at the borders, and clamping keeps
 * the order of numbers: so what holds for the offsets holds for each tile of each image. */
#include "plan.h"

#include "contract_constants.h"
#include "open.h"

#define PLAN_ITEMS_MAX 4096u /* of a plan; each is compared with each of its group */
#define PLAN_REACH 65536     /* largest offset and tile */

static const uint8_t *table(const sl_model *model, int which)
{
    const sl_plan_record plan = sl_plan(model);
    const uint8_t *at = model->plan.data + sizeof plan;

    if (which > 0) at += (size_t)plan.group_count * sizeof(sl_plan_group_record);
    if (which > 1) at += (size_t)plan.window_count * sizeof(sl_plan_window_record);
    if (which > 2) at += (size_t)plan.item_count * sizeof(sl_plan_item_record);
    return at;
}

sl_plan_record sl_plan(const sl_model *model)
{
    sl_plan_record record;
    sl_decode(&record, model->plan.data, sizeof record, SL_PLAN_FIELDS);
    return record;
}

sl_plan_group_record sl_plan_group(const sl_model *model, uint32_t index)
{
    sl_plan_group_record record;
    sl_decode(&record, table(model, 0) + (size_t)index * sizeof record, sizeof record,
              SL_PLAN_GROUP_FIELDS);
    return record;
}

sl_plan_window_record sl_plan_window(const sl_model *model, uint32_t index)
{
    sl_plan_window_record record;
    sl_decode(&record, table(model, 1) + (size_t)index * sizeof record, sizeof record,
              SL_PLAN_WINDOW_FIELDS);
    return record;
}

sl_plan_item_record sl_plan_item(const sl_model *model, uint32_t index)
{
    sl_plan_item_record record;
    sl_decode(&record, table(model, 2) + (size_t)index * sizeof record, sizeof record,
              SL_PLAN_ITEM_FIELDS);
    return record;
}

sl_plan_spill_record sl_plan_spill(const sl_model *model, uint32_t index)
{
    sl_plan_spill_record record;
    sl_decode(&record, table(model, 3) + (size_t)index * sizeof record, sizeof record,
              SL_PLAN_SPILL_FIELDS);
    return record;
}

uint32_t sl_plan_level(const sl_model *model, const sl_plan_group_record *group,
                       const sl_plan_item_record *item)
{
    if (item->output == SL_PLAN_NONE) return 0;
    return sl_buffer(model, sl_plan_window(model, group->first_window + item->output).buffer).level;
}

/* A group that is being checked: its record and its number. */
typedef struct check {
    const sl_model *model;
    sl_plan_group_record group;
    uint32_t index;
} check;

static sl_plan_window_record window_of(const check *at, uint32_t index)
{
    return sl_plan_window(at->model, at->group.first_window + index);
}

static sl_plan_item_record item_of(const check *at, uint32_t index)
{
    return sl_plan_item(at->model, at->group.first_item + index);
}

static int in_buffer(const sl_model *model, uint32_t buffer, uint32_t offset, uint32_t channels)
{
    return buffer < model->model.buffer_count && channels >= 1 &&
           (uint64_t)offset + channels <= sl_buffer(model, buffer).channels;
}

static int within(int64_t value, int64_t low, int64_t high)
{
    return value >= low && value <= high;
}

static uint32_t value_bytes(const sl_model *model, uint32_t buffer)
{
    return sl_buffer(model, buffer).bits / 8u;
}

static uint64_t window_end(const sl_model *model, const sl_plan_window_record *window)
{
    return window->address + (uint64_t)window->rows * window->columns * window->channels *
                                 value_bytes(model, window->buffer);
}

static int window_holds_rules(const check *at, const sl_plan_window_record *window)
{
    const sl_plan_record plan = sl_plan(at->model);
    uint32_t depth;

    if (!in_buffer(at->model, window->buffer, window->channel_offset, window->channels)) return 0;
    depth = (UINT32_C(1) << sl_buffer(at->model, window->buffer).level) - 1;
    return (window->flags & ~SL_PLAN_KEEP) == 0 && within(window->left, -PLAN_REACH, 0) &&
           within(window->rows, 1, 4 * PLAN_REACH) && within(window->columns, 1, 4 * PLAN_REACH) &&
           window->address % at->model->chip.alignment == 0 &&
           window_end(at->model, window) <= plan.sram_bytes &&
           (at->group.tile_height & depth) == 0 && (at->group.tile_width & depth) == 0;
}

/* Whether a view of a layer's lies in the window that an item names for it. */
static int view_in_window(const check *at, uint32_t index, const sl_view_record *view)
{
    sl_plan_window_record window;

    if (index >= at->group.window_count) return 0;
    window = window_of(at, index);
    return window.buffer == view->buffer && view->channel_offset >= window.channel_offset &&
           (uint32_t)view->channel_offset + view->channels <=
               window.channel_offset + window.channels;
}

static int layer_agrees(const check *at, const sl_plan_item_record *item)
{
    sl_layer_record layer;
    const int absent = item->output == SL_PLAN_NONE;

    if (item->layer >= at->model->model.layer_count) return 0;
    layer = sl_layer(at->model, item->layer);
    if (!view_in_window(at, item->input, &layer.input)) return 0;
    if ((layer.flags & SL_LAYER_JOIN) == 0 ? item->join != SL_PLAN_NONE
                                           : !view_in_window(at, item->join, &layer.join))
        return 0;
    if ((layer.flags & SL_LAYER_OUTPUT) == 0)
        return absent && item->spill == SL_PLAN_NONE && item->channels == 0 &&
               item->channel_offset == 0;
    if (layer.op == SL_OP_UP && ((item->top | item->bottom | item->left | item->right) & 1) != 0)
        return 0;
    return view_in_window(at, item->output, &layer.output) &&
           item->channel_offset == layer.output.channel_offset &&
           item->channels == layer.output.channels;
}

static int load_agrees(const check *at, const sl_plan_item_record *item)
{
    sl_plan_window_record window;
    sl_plan_spill_record spill;

    if (item->input != SL_PLAN_NONE || item->join != SL_PLAN_NONE ||
        item->weight_address != SL_PLAN_NONE || item->output >= at->group.window_count)
        return 0;
    window = window_of(at, item->output);
    if (item->channels == 0 || item->channel_offset < window.channel_offset ||
        (uint64_t)item->channel_offset + item->channels >
            (uint64_t)window.channel_offset + window.channels)
        return 0;
    if (sl_buffer(at->model, window.buffer).kind == SL_BUFFER_IMAGE)
        return item->spill == SL_PLAN_NONE && item->channels == SL_IMAGE_CHANNELS;
    if (item->spill >= sl_plan(at->model).spill_count) return 0;
    spill = sl_plan_spill(at->model, item->spill);
    return spill.buffer == window.buffer && spill.channel_offset == item->channel_offset &&
           spill.channels == item->channels && spill.first_group < at->index &&
           at->index <= spill.last_group;
}

static int store_agrees(const check *at, const sl_plan_item_record *item)
{
    sl_plan_spill_record spill;

    if (item->spill == SL_PLAN_NONE) return 1;
    if (item->spill >= sl_plan(at->model).spill_count) return 0;
    spill = sl_plan_spill(at->model, item->spill);
    return spill.buffer == window_of(at, item->output).buffer &&
           spill.channel_offset == item->channel_offset && spill.channels == item->channels &&
           spill.first_group == at->index;
}

/* What the item makes must fit its window, in rows and in columns. */
static int fits_window(const check *at, const sl_plan_item_record *item, uint32_t level)
{
    sl_plan_window_record window;

    if (item->output == SL_PLAN_NONE) return 1;
    window = window_of(at, item->output);
    if ((window.flags & SL_PLAN_KEEP) != 0 && item->top != item->bottom) return 0;
    return item->left >= window.left &&
           (int64_t)(at->group.tile_height >> level) + item->bottom - item->top <= window.rows &&
           (int64_t)(at->group.tile_width >> level) + item->right - window.left <= window.columns;
}

static int item_holds_rules(const check *at, const sl_plan_item_record *item)
{
    const int load = item->layer == SL_PLAN_NONE;
    uint32_t level;

    if (!within(item->top, -PLAN_REACH, PLAN_REACH) || !within(item->bottom, 0, PLAN_REACH) ||
        item->top > item->bottom || !within(item->left, -PLAN_REACH, 0) ||
        !within(item->right, 0, PLAN_REACH) || !sl_all_zero(item->zero, sizeof item->zero) ||
        !(load ? load_agrees(at, item) : layer_agrees(at, item) && store_agrees(at, item)))
        return 0;
    level = sl_plan_level(at->model, &at->group, item);
    if (!load && item->weight_address != SL_PLAN_NONE &&
        (item->weight_address % at->model->chip.alignment != 0 ||
         item->weight_address + sl_layer(at->model, item->layer).weight_bytes >
             sl_plan(at->model).sram_bytes))
        return 0;
    return fits_window(at, item, level) && (uint64_t)at->group.prologue * at->group.tile_height >=
                                               (uint64_t)(uint32_t)item->bottom << level;
}

/* Input offsets that an operation needs for offsets of what it writes. */
static sl_span_offsets input_offsets(uint8_t op, int64_t first, int64_t end)
{
    sl_span_offsets need;
    const int64_t reach = op == SL_OP_CONV1X1 ? 0 : 1;

    need.first = first - reach;
    need.end = end + reach;
    if (op == SL_OP_CONV3X3_STRIDE2) {
        need.first = 2 * first - 1;
        need.end = 2 * end;
    } else if (op == SL_OP_UP) { /* both even */
        need.first = first / 2;
        need.end = end / 2;
    }
    return need;
}

/* The view must have been written by items before `reader`, as far as it is read, and last. */
static int finds(const check *at, uint32_t reader, uint32_t index, const sl_view_record *view,
                 sl_span_offsets rows, sl_span_offsets columns)
{
    const sl_plan_window_record window = window_of(at, index);
    const int64_t tall = at->group.tile_height >> view->level;
    uint32_t found = 0, i;

    for (i = 0; i < at->group.item_count; i++) {
        const sl_plan_item_record item = item_of(at, i);
        const uint32_t first =
            item.channel_offset > view->channel_offset ? item.channel_offset : view->channel_offset;
        const uint32_t item_end = item.channel_offset + item.channels;
        const uint32_t view_end = (uint32_t)view->channel_offset + view->channels;
        const uint32_t end = item_end < view_end ? item_end : view_end;

        if (item.output != index) continue;
        if (tall + item.bottom - rows.first > window.rows) return 0; /* a ring keeps so many rows */
        if (i >= reader || first >= end) continue;
        if (item.bottom < rows.end || item.left > columns.first || item.right < columns.end)
            return 0;
        if ((window.flags & SL_PLAN_KEEP) == 0 && item.top > rows.first) return 0;
        found += end - first;
    }
    return found == view->channels;
}

static int reads_agree(const check *at, uint32_t reader)
{
    const sl_plan_item_record item = item_of(at, reader);
    sl_layer_record layer;

    if (item.layer == SL_PLAN_NONE) return 1;
    layer = sl_layer(at->model, item.layer);
    if (!finds(at, reader, item.input, &layer.input, input_offsets(layer.op, item.top, item.bottom),
               input_offsets(layer.op, item.left, item.right)))
        return 0;
    return (layer.flags & SL_LAYER_JOIN) == 0 ||
           finds(at, reader, item.join, &layer.join,
                 input_offsets(SL_OP_CONV1X1, item.top, item.bottom),
                 input_offsets(SL_OP_CONV1X1, item.left, item.right));
}

/* Channels are written once in a group, and no ring is overrun by what the same window holds. */
static int writes_agree(const check *at, uint32_t writer)
{
    const sl_plan_item_record item = item_of(at, writer);
    uint32_t level, i;

    if (item.output == SL_PLAN_NONE) return 1;
    level = sl_plan_level(at->model, &at->group, &item);
    for (i = 0; i < at->group.item_count; i++) {
        const sl_plan_item_record other = item_of(at, i);
        if (other.output != item.output) continue;
        if ((int64_t)(at->group.tile_height >> level) + other.bottom - item.top >
            window_of(at, item.output).rows)
            return 0;
        if (i != writer && other.channel_offset < item.channel_offset + item.channels &&
            item.channel_offset < other.channel_offset + other.channels)
            return 0;
    }
    return 1;
}

typedef struct place {
    uint64_t start, end;
    uint32_t first, last; /* items between which the bytes are live */
} place;

static place window_place(const check *at, uint32_t index)
{
    const sl_plan_window_record window = window_of(at, index);
    place found;
    uint32_t i;

    found.start = window.address;
    found.end = window_end(at->model, &window);
    found.first = at->group.item_count;
    found.last = 0;
    for (i = 0; i < at->group.item_count; i++) {
        const sl_plan_item_record item = item_of(at, i);
        if (item.output != index && item.input != index && item.join != index) continue;
        if (found.first == at->group.item_count) found.first = i;
        found.last = i;
    }
    if ((window.flags & SL_PLAN_KEEP) != 0) {
        found.first = 0;
        found.last = at->group.item_count;
    }
    return found;
}

/* Windows first, then the weights of items; empty for an item without a place. */
static place place_of(const check *at, uint32_t index)
{
    place found = {0, 0, 0, 0};
    sl_plan_item_record item;

    if (index < at->group.window_count) return window_place(at, index);
    item = item_of(at, index - at->group.window_count);
    if (item.layer == SL_PLAN_NONE || item.weight_address == SL_PLAN_NONE) return found;
    found.start = item.weight_address;
    found.end = found.start + sl_layer(at->model, item.layer).weight_bytes;
    found.last = at->group.item_count;
    return found;
}

static int places_apart(const check *at)
{
    const uint32_t count = at->group.window_count + at->group.item_count;
    uint32_t i, j;

    for (i = 0; i < count; i++) {
        const place one = place_of(at, i);
        for (j = 0; j < i && one.start < one.end; j++) {
            const place other = place_of(at, j);
            if (one.first <= other.last && other.first <= one.last && one.start < other.end &&
                other.start < one.end)
                return 0;
        }
    }
    return 1;
}

static int group_holds_rules(const check *at)
{
    uint32_t i;

    if (!within(at->group.tile_height, 1, PLAN_REACH) ||
        !within(at->group.tile_width, 1, PLAN_REACH) || at->group.prologue > PLAN_REACH ||
        !sl_all_zero(at->group.zero, sizeof at->group.zero))
        return 0;
    for (i = 0; i < at->group.window_count; i++) {
        const sl_plan_window_record window = window_of(at, i);
        if (!window_holds_rules(at, &window)) return 0;
    }
    for (i = 0; i < at->group.item_count; i++) {
        const sl_plan_item_record item = item_of(at, i);
        if (!item_holds_rules(at, &item)) return 0;
    }
    for (i = 0; i < at->group.item_count; i++)
        if (!writes_agree(at, i) || !reads_agree(at, i)) return 0;
    return places_apart(at);
}

static uint64_t spill_end(const sl_model *model, const sl_plan_spill_record *spill)
{
    const uint32_t shift = 2 * (model->model.levels - sl_buffer(model, spill->buffer).level);
    return spill->address_per_cell +
           ((uint64_t)spill->channels * value_bytes(model, spill->buffer) << shift);
}

/* How many items of a plan are this layer, or (when `spill` is not NONE) store into this spill. */
static uint32_t count_items(const sl_model *model, uint32_t layer, uint32_t spill)
{
    const uint32_t count = sl_plan(model).item_count;
    uint32_t found = 0, i;

    for (i = 0; i < count; i++) {
        const sl_plan_item_record item = sl_plan_item(model, i);
        if (spill == SL_PLAN_NONE ? item.layer == layer
                                  : item.spill == spill && item.layer != SL_PLAN_NONE)
            found++;
    }
    return found;
}

static int spills_agree(const sl_model *model, const sl_plan_record *plan)
{
    uint32_t i, j;

    for (i = 0; i < plan->spill_count; i++) {
        const sl_plan_spill_record one = sl_plan_spill(model, i);
        if (!in_buffer(model, one.buffer, one.channel_offset, one.channels) ||
            one.address_per_cell % model->chip.alignment != 0 ||
            spill_end(model, &one) > plan->dram_bytes_per_cell ||
            one.first_group > one.last_group || !sl_all_zero(one.zero, sizeof one.zero) ||
            count_items(model, SL_PLAN_NONE, i) != 1)
            return 0;
        for (j = 0; j < i; j++) {
            const sl_plan_spill_record other = sl_plan_spill(model, j);
            if (one.first_group <= other.last_group && other.first_group <= one.last_group &&
                one.address_per_cell < spill_end(model, &other) &&
                other.address_per_cell < spill_end(model, &one))
                return 0;
        }
    }
    return 1;
}

static int sizes_agree(const sl_model *model)
{
    sl_plan_record plan;

    if (model->plan.bytes < sizeof plan) return 0;
    plan = sl_plan(model);
    return plan.alignment == model->chip.alignment && plan.sram_bytes % plan.alignment == 0 &&
           plan.dram_bytes_per_cell % plan.alignment == 0 && plan.group_count >= 1 &&
           plan.group_count <= plan.item_count && plan.item_count <= PLAN_ITEMS_MAX &&
           plan.window_count <= PLAN_ITEMS_MAX && plan.spill_count <= PLAN_ITEMS_MAX &&
           sl_all_zero(plan.zero, sizeof plan.zero) &&
           model->plan.bytes == sizeof plan + plan.group_count * sizeof(sl_plan_group_record) +
                                    plan.window_count * sizeof(sl_plan_window_record) +
                                    plan.item_count * sizeof(sl_plan_item_record) +
                                    plan.spill_count * sizeof(sl_plan_spill_record);
}

sl_status sl_check_plan(sl_model *model)
{
    sl_plan_record plan;
    check at;
    uint32_t windows = 0, items = 0, i;

    model->fault = 0;
    if (model->plan.data == NULL) return SL_OK;
    if (!sizes_agree(model)) return SL_BAD_PLAN;
    plan = sl_plan(model);
    at.model = model;
    for (at.index = 0; at.index < plan.group_count; at.index++) {
        at.group = sl_plan_group(model, at.index);
        if (at.group.first_window != windows || at.group.first_item != items ||
            at.group.window_count > plan.window_count - windows ||
            at.group.item_count > plan.item_count - items)
            return SL_BAD_PLAN;
        windows += at.group.window_count;
        items += at.group.item_count;
    }
    if (windows != plan.window_count || items != plan.item_count || !spills_agree(model, &plan))
        return SL_BAD_PLAN;
    for (i = 0; i < model->model.layer_count; i++)
        if (count_items(model, i, SL_PLAN_NONE) == 0) return SL_BAD_PLAN;
    for (at.index = 0; at.index < plan.group_count; at.index++) {
        model->fault = at.index;
        at.group = sl_plan_group(model, at.index);
        if (!group_holds_rules(&at)) return SL_BAD_PLAN_GROUP;
    }
    model->fault = 0;
    return SL_OK;
}
