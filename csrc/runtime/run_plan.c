/* A run by the stripe plan: group after group, band after band, step after step, item after item.
 * Layers touch SRAM alone; loads and stores move tensors between it and DRAM. */
#include <string.h>

#include "contract_constants.h"
#include "intmath.h"
#include "layer_job.h"
#include "plan.h"

typedef struct tile_walk {
    const sl_frame *frame; /* its arena is the SRAM */
    int8_t *dram;
    sl_plan_group_record group;
    int64_t step, band;
} tile_walk;

static uint32_t clamped(int64_t value, uint32_t size)
{
    return value < 0 ? 0 : value > size ? size : (uint32_t)value;
}

/* What an item makes in this tile, of a map at a level. */
static sl_region made(const tile_walk *at, const sl_plan_item_record *item, uint32_t level)
{
    const uint32_t height = at->frame->padded_height >> level;
    const uint32_t width = at->frame->padded_width >> level;
    const int64_t tall = at->group.tile_height >> level, wide = at->group.tile_width >> level;
    sl_region region;

    region.top = clamped(at->step * tall + item->top, height);
    region.bottom = clamped((at->step + 1) * tall + item->bottom, height);
    region.left = clamped(at->band * wide + item->left, width);
    region.right = clamped((at->band + 1) * wide + item->right, width);
    return region;
}

/* Of that the part that no other tile makes first: what is stored and traced. */
static sl_region fresh(const tile_walk *at, const sl_plan_item_record *item, uint32_t level)
{
    sl_plan_item_record own = *item;

    own.top = own.bottom;
    own.left = own.right = 0;
    return made(at, &own, level);
}

static sl_map map_of(const tile_walk *at, uint32_t index, uint32_t channel_offset,
                     uint32_t channels)
{
    const sl_plan_window_record window =
        sl_plan_window(at->frame->model, at->group.first_window + index);
    const sl_buffer_record buffer = sl_buffer(at->frame->model, window.buffer);
    const uint32_t level = buffer.level;
    const int64_t wide = at->group.tile_width >> level;
    sl_map map;

    sl_place_map(&map, at->frame->arena + window.address, &buffer, window.channels,
                 channel_offset - window.channel_offset, channels);
    map.channel_offset = channel_offset;
    map.height = at->frame->padded_height >> level;
    map.width = at->frame->padded_width >> level;
    map.rows = window.rows;
    map.columns = window.columns;
    map.left = clamped(at->band * wide + window.left, map.width);
    return map;
}

/* A spill as a map: the whole frame in DRAM. */
static sl_map spilled(const tile_walk *at, uint32_t index)
{
    const sl_plan_spill_record spill = sl_plan_spill(at->frame->model, index);
    const sl_buffer_record buffer = sl_buffer(at->frame->model, spill.buffer);
    const uint32_t level = buffer.level;
    sl_map map;

    sl_place_map(&map, at->dram + (size_t)spill.address_per_cell * at->frame->cells, &buffer,
                 spill.channels, 0, spill.channels);
    map.channel_offset = spill.channel_offset;
    map.height = map.rows = at->frame->padded_height >> level;
    map.width = map.columns = at->frame->padded_width >> level;
    map.left = 0;
    return map;
}

static void copy(const sl_map *to, const sl_map *from, sl_region region)
{
    uint32_t y, x;

    for (y = region.top; y < region.bottom; y++)
        for (x = region.left; x < region.right; x++)
            memcpy(sl_at(to, y, x), sl_at(from, y, x), (size_t)to->channels * to->value_bytes);
}

static void load_image(const tile_walk *at, const sl_map *to, sl_region region)
{
    uint32_t y, x, c;

    for (y = region.top; y < region.bottom; y++)
        for (x = region.left; x < region.right; x++) {
            const uint8_t *rgb = sl_image_pixel(at->frame, y, x);
            int8_t *q = sl_at(to, y, x);
            for (c = 0; c < SL_IMAGE_CHANNELS; c++)
                q[c] = sl_quantise_pixel(rgb[c]);
        }
}

static void load(const tile_walk *at, const sl_plan_item_record *item)
{
    const uint32_t level = sl_plan_level(at->frame->model, &at->group, item);
    const sl_map to = map_of(at, item->output, item->channel_offset, item->channels);
    const sl_region region = made(at, item, level);

    if (item->spill == SL_PLAN_NONE) {
        load_image(at, &to, region);
    } else {
        const sl_map from = spilled(at, item->spill);
        copy(&to, &from, region);
    }
}

static sl_region halved(sl_region region)
{
    region.top /= 2;
    region.bottom /= 2;
    region.left /= 2;
    region.right /= 2;
    return region;
}

static uint32_t at_most(uint32_t value, uint32_t limit)
{
    return value < limit ? value : limit;
}

static void run_item(const tile_walk *at, const sl_plan_item_record *item)
{
    const sl_frame *frame = at->frame;
    const uint32_t level = sl_plan_level(frame->model, &at->group, item);
    sl_job job;

    memset(&job, 0, sizeof job);
    job.frame = frame;
    job.index = item->layer;
    job.tile = 1;
    job.layer = sl_layer(frame->model, item->layer);
    job.weights = (const int8_t *)frame->model->weights.data + (size_t)job.layer.weight_offset;
    job.block = frame->model->model.channel_block;
    job.input = map_of(at, item->input, job.layer.input.channel_offset, job.layer.input.channels);
    job.out_height = job.input.height / job.layer.stride;
    job.out_width = job.input.width / job.layer.stride;
    job.region = made(at, item, level);
    if (job.layer.op == SL_OP_UP) job.region = halved(job.region);
    if (job.layer.op == SL_OP_TAIL && frame->trace == NULL) {
        job.region.bottom = at_most(job.region.bottom, frame->height);
        job.region.right = at_most(job.region.right, frame->width);
    }
    if (item->join != SL_PLAN_NONE)
        job.join = map_of(at, item->join, job.layer.join.channel_offset, job.layer.join.channels);
    if (item->output != SL_PLAN_NONE)
        job.output = map_of(at, item->output, item->channel_offset, item->channels);
    job.traced = fresh(at, item, level);
    sl_choose_arithmetic(&job);
    sl_run_job(&job);
    if (item->spill != SL_PLAN_NONE) {
        const sl_map to = spilled(at, item->spill);
        copy(&to, &job.output, job.traced);
    }
}

static void run_group(tile_walk *at)
{
    const int64_t steps =
        (at->frame->padded_height + (int64_t)at->group.tile_height - 1) / at->group.tile_height;
    const int64_t bands =
        (at->frame->padded_width + (int64_t)at->group.tile_width - 1) / at->group.tile_width;
    uint32_t i;

    for (at->band = 0; at->band < bands; at->band++)
        for (at->step = -(int64_t)at->group.prologue; at->step < steps; at->step++)
            for (i = 0; i < at->group.item_count; i++) {
                const sl_plan_item_record item =
                    sl_plan_item(at->frame->model, at->group.first_item + i);
                if (item.layer == SL_PLAN_NONE)
                    load(at, &item);
                else
                    run_item(at, &item);
            }
}

sl_status sl_plan_bytes(const sl_model *model, uint32_t width, uint32_t height, size_t *sram_bytes,
                        size_t *dram_bytes)
{
    sl_frame frame;
    size_t arena;
    sl_status status;

    if (model == NULL || sram_bytes == NULL || dram_bytes == NULL) return SL_NULL_ARGUMENT;
    if (model->plan.data == NULL) return SL_NO_PLAN;
    if ((status = sl_arena_bytes(model, width, height, &arena)) != SL_OK) return status;
    frame.model = model;
    frame.width = width;
    frame.height = height;
    *sram_bytes = sl_plan(model).sram_bytes;
    return sl_size_frame(&frame, sl_plan(model).dram_bytes_per_cell, dram_bytes);
}

sl_status sl_run_planned(const sl_model *model, const uint8_t *rgb_in, size_t in_stride,
                         uint8_t *rgb_out, size_t out_stride, uint32_t width, uint32_t height,
                         void *sram, size_t sram_bytes, void *dram, size_t dram_bytes,
                         sl_trace_fn trace, void *context)
{
    sl_frame frame;
    tile_walk at;
    size_t dram_need;
    uint32_t i;
    sl_status status;

    if (sram == NULL || dram == NULL) return SL_NULL_ARGUMENT;
    status = sl_request(&frame, model, rgb_in, in_stride, rgb_out, out_stride, width, height, trace,
                        context);
    if (status != SL_OK) return status;
    if (model->plan.data == NULL) return SL_NO_PLAN;
    status = sl_size_frame(&frame, sl_plan(model).dram_bytes_per_cell, &dram_need);
    if (status != SL_OK) return status;
    if ((uintptr_t)sram % model->chip.alignment != 0 ||
        (uintptr_t)dram % model->chip.alignment != 0)
        return SL_ARENA_MISALIGNED;
    if (sram_bytes < sl_plan(model).sram_bytes || dram_bytes < dram_need) return SL_ARENA_TOO_SMALL;
    if (sl_meets_images(&frame, sram, sram_bytes) || sl_meets_images(&frame, dram, dram_bytes) ||
        sl_overlap(sram, sram_bytes, dram, dram_bytes) || sl_images_overlap(&frame))
        return SL_MEMORY_OVERLAPS;
    frame.arena = (int8_t *)sram;
    at.frame = &frame;
    at.dram = (int8_t *)dram;
    for (i = 0; i < sl_plan(model).group_count; i++) {
        at.group = sl_plan_group(model, i);
        run_group(&at);
    }
    return SL_OK;
}
