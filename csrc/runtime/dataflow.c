/* The address plan and the order of reads and writes. Together with the views' bounds this makes
 * every access of a run safe: a layer's output can meet neither what it reads nor what a later
 * layer still needs, and nothing is read that was not written. */
#include "open.h"

static int touches(const sl_layer_record *layer, uint32_t buffer)
{
    return layer->input.buffer == buffer ||
           ((layer->flags & SL_LAYER_JOIN) != 0 && layer->join.buffer == buffer) ||
           ((layer->flags & SL_LAYER_OUTPUT) != 0 && layer->output.buffer == buffer);
}

static sl_status check_place(const sl_model *model, uint32_t index)
{
    const sl_buffer_record buffer = sl_buffer(model, index);
    const uint32_t layers = model->model.layer_count;
    uint32_t first = layers, last = 0, i;

    if (buffer.kind == SL_BUFFER_IMAGE) return SL_OK;
    if (buffer.address_per_cell % model->chip.alignment != 0 ||
        (uint64_t)buffer.address_per_cell + buffer.bytes_per_cell >
            model->model.arena_bytes_per_cell)
        return SL_BUFFER_OUTSIDE_ARENA;
    for (i = 0; i < layers; i++) {
        const sl_layer_record layer = sl_layer(model, i);
        if (!touches(&layer, index)) continue;
        if (first == layers) first = i;
        last = i;
    }
    return buffer.first_layer == first && buffer.last_layer == last ? SL_OK : SL_BAD_LIFETIME;
}

static int collide(const sl_buffer_record *one, const sl_buffer_record *other)
{
    const int live = one->first_layer <= other->last_layer && other->first_layer <= one->last_layer;
    const uint64_t one_end = (uint64_t)one->address_per_cell + one->bytes_per_cell;
    const uint64_t other_end = (uint64_t)other->address_per_cell + other->bytes_per_cell;

    return live && one->kind == SL_BUFFER_ACTIVATION && other->kind == SL_BUFFER_ACTIVATION &&
           one->address_per_cell < other_end && other->address_per_cell < one_end;
}

/* How many channels of `view` the layers before `index` write. */
static uint32_t channels_written(const sl_model *model, uint32_t index, const sl_view_record *view)
{
    const uint32_t start = view->channel_offset;
    const uint32_t end = start + view->channels;
    uint32_t count = 0, i;

    if (sl_buffer(model, view->buffer).kind == SL_BUFFER_IMAGE) return view->channels;
    for (i = 0; i < index; i++) {
        const sl_view_record written = sl_layer(model, i).output;
        const uint32_t low = written.channel_offset;
        const uint32_t high = low + written.channels;
        if (written.buffer != view->buffer || high <= start || low >= end) continue;
        count += (high < end ? high : end) - (low > start ? low : start);
    }
    return count;
}

static sl_status check_order(const sl_model *model, uint32_t index)
{
    const sl_layer_record layer = sl_layer(model, index);

    if (channels_written(model, index, &layer.input) != layer.input.channels)
        return SL_READ_BEFORE_WRITE;
    if ((layer.flags & SL_LAYER_JOIN) != 0 &&
        channels_written(model, index, &layer.join) != layer.join.channels)
        return SL_READ_BEFORE_WRITE;
    if ((layer.flags & SL_LAYER_OUTPUT) != 0 && channels_written(model, index, &layer.output) != 0)
        return SL_WRITTEN_TWICE;
    return SL_OK;
}

sl_status sl_check_dataflow(sl_model *model)
{
    sl_status status;
    uint32_t i, j;

    for (i = 0; i < model->model.buffer_count; i++) {
        const sl_buffer_record one = sl_buffer(model, i);
        model->fault = i;
        if ((status = check_place(model, i)) != SL_OK) return status;
        for (j = 0; j < i; j++) {
            const sl_buffer_record other = sl_buffer(model, j);
            if (collide(&one, &other)) return SL_BUFFERS_OVERLAP;
        }
    }
    for (i = 0; i < model->model.layer_count; i++) {
        model->fault = i;
        if ((status = check_order(model, i)) != SL_OK) return status;
    }
    model->fault = 0;
    return SL_OK;
}
