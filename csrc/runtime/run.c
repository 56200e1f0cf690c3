/* A run: sizes and addresses of a frame, then layer after layer. */
#include <string.h>

#include "contract_constants.h"
#include "layer_job.h"

static uint64_t count_cells(const sl_model *model, uint32_t width, uint32_t height)
{
    const uint64_t grid = UINT64_C(1) << model->model.levels;
    return (width + grid - 1) / grid * ((height + grid - 1) / grid);
}

sl_status sl_size_frame(sl_frame *frame, uint32_t bytes_per_cell, size_t *bytes)
{
    const uint32_t grid = UINT32_C(1) << frame->model->model.levels;
    const uint64_t cells = count_cells(frame->model, frame->width, frame->height); /* < 2^32 */
    const uint64_t total = cells * bytes_per_cell;

    if (total > SIZE_MAX) return SL_IMAGE_TOO_LARGE;
    *bytes = (size_t)total;
    frame->cells = (size_t)cells;
    frame->padded_width = (frame->width + grid - 1) / grid * grid;
    frame->padded_height = (frame->height + grid - 1) / grid * grid;
    return SL_OK;
}

static sl_status check_size(const sl_model *model, uint32_t width, uint32_t height)
{
    if (width == 0 || height == 0) return SL_IMAGE_EMPTY;
    if (width > model->chip.max_width || height > model->chip.max_height || width > SL_FRAME_MAX ||
        height > SL_FRAME_MAX)
        return SL_IMAGE_TOO_LARGE;
    return SL_OK;
}

sl_status sl_arena_bytes(const sl_model *model, uint32_t width, uint32_t height, size_t *bytes)
{
    sl_frame frame;
    sl_status status;

    if (model == NULL || bytes == NULL) return SL_NULL_ARGUMENT;
    if ((status = check_size(model, width, height)) != SL_OK) return status;
    frame.model = model;
    frame.width = width;
    frame.height = height;
    return sl_size_frame(&frame, model->model.arena_bytes_per_cell, bytes);
}

static sl_map map_of(const sl_frame *frame, const sl_view_record *view)
{
    const sl_buffer_record buffer = sl_buffer(frame->model, view->buffer);
    sl_map map;

    sl_place_map(&map, frame->arena + (size_t)view->address_per_cell * frame->cells, &buffer,
                 view->pixel_stride, view->channel_offset, view->channels);
    map.channel_offset = view->channel_offset;
    if (buffer.kind == SL_BUFFER_IMAGE) map.data = NULL;
    map.height = frame->padded_height >> view->level;
    map.width = frame->padded_width >> view->level;
    map.rows = map.height;
    map.columns = map.width;
    map.left = 0;
    return map;
}

static sl_job job_of(const sl_frame *frame, uint32_t index)
{
    sl_job job;

    memset(&job, 0, sizeof job);
    job.frame = frame;
    job.index = index;
    job.layer = sl_layer(frame->model, index);
    job.weights = (const int8_t *)frame->model->weights.data + (size_t)job.layer.weight_offset;
    job.block = frame->model->model.channel_block;
    job.input = map_of(frame, &job.layer.input);
    job.out_height = job.input.height / job.layer.stride;
    job.out_width = job.input.width / job.layer.stride;
    if ((job.layer.flags & SL_LAYER_JOIN) != 0) job.join = map_of(frame, &job.layer.join);
    if ((job.layer.flags & SL_LAYER_OUTPUT) != 0) job.output = map_of(frame, &job.layer.output);
    job.region.bottom = job.out_height;
    job.region.right = job.out_width;
    if (job.layer.op == SL_OP_TAIL && frame->trace == NULL) { /* the padding is for a trace alone */
        job.region.bottom = frame->height;
        job.region.right = frame->width;
    }
    job.traced.bottom = job.output.height;
    job.traced.right = job.output.width;
    sl_choose_arithmetic(&job);
    return job;
}

static void trace_output(const sl_job *job)
{
    const sl_map *output = &job->output;
    const sl_region *traced = &job->traced;
    sl_trace piece;

    piece.layer = job->index;
    piece.height = output->height;
    piece.width = output->width;
    piece.pixels = traced->right - traced->left;
    piece.channels = output->channels;
    piece.x = traced->left;
    piece.pixel_stride = output->pixel_stride;
    piece.value_bytes = output->value_bytes;
    for (piece.y = traced->top; piece.y < traced->bottom; piece.y++) {
        piece.values = (const uint8_t *)sl_at(output, piece.y, piece.x);
        job->frame->trace(job->frame->context, &piece);
    }
}

static void trace_map(const sl_job *job)
{
    if (job->frame->trace != NULL && job->layer.op != SL_OP_TAIL) trace_output(job);
}

void sl_run_job(const sl_job *job)
{
    if (sl_offer(job)) {
        trace_map(job);
        return;
    }
    switch (job->layer.op) {
    case SL_OP_UP: sl_up(job); break;
    case SL_OP_TAIL: sl_tail(job); break; /* traces its own output */
    default: sl_conv(job); break;
    }
    trace_map(job);
}

sl_status sl_run_frame(const sl_frame *request, size_t arena_bytes)
{
    sl_frame frame = *request;
    size_t need;
    uint32_t i;
    sl_status status = sl_size_frame(&frame, frame.model->model.arena_bytes_per_cell, &need);

    if (status != SL_OK) return status;
    if ((uintptr_t)frame.arena % frame.model->chip.alignment != 0) return SL_ARENA_MISALIGNED;
    if (arena_bytes < need) return SL_ARENA_TOO_SMALL;
    for (i = 0; i < frame.model->model.layer_count; i++) {
        const sl_job job = job_of(&frame, i);
        sl_run_job(&job);
    }
    return SL_OK;
}

/* Bytes of an image from its first to its last pixel; 0 when a row does not fit the stride. */
static size_t image_bytes(uint32_t width, uint32_t height, size_t stride)
{
    const size_t row = (size_t)width * SL_IMAGE_CHANNELS;

    if (stride < row || (height > 1 && stride > (SIZE_MAX - row) / (height - 1))) return 0;
    return stride * (height - 1) + row;
}

int sl_overlap(const void *one, size_t one_bytes, const void *other, size_t other_bytes)
{
    const uintptr_t a = (uintptr_t)one, b = (uintptr_t)other;
    return a < b ? b - a < one_bytes : a - b < other_bytes;
}

int sl_meets_images(const sl_frame *frame, const void *memory, size_t bytes)
{
    return sl_overlap(memory, bytes, frame->rgb_in,
                      image_bytes(frame->width, frame->height, frame->in_stride)) ||
           sl_overlap(memory, bytes, frame->rgb_out,
                      image_bytes(frame->width, frame->height, frame->out_stride));
}

int sl_images_overlap(const sl_frame *frame)
{
    return sl_overlap(frame->rgb_in, image_bytes(frame->width, frame->height, frame->in_stride),
                      frame->rgb_out, image_bytes(frame->width, frame->height, frame->out_stride));
}

/* In place, the tail reads each pixel before it writes it; whoever else reads the image has run. */
static int may_run_in_place(const sl_model *model, sl_trace_fn trace)
{
    const sl_layer_record tail = sl_layer(model, model->model.layer_count - 1);
    return trace == NULL && sl_buffer(model, tail.input.buffer).kind != SL_BUFFER_IMAGE;
}

sl_status sl_request(sl_frame *frame, const sl_model *model, const uint8_t *rgb_in,
                     size_t in_stride, uint8_t *rgb_out, size_t out_stride, uint32_t width,
                     uint32_t height, sl_trace_fn trace, void *context)
{
    sl_status status;

    if (model == NULL || rgb_in == NULL || rgb_out == NULL) return SL_NULL_ARGUMENT;
    if ((status = check_size(model, width, height)) != SL_OK) return status;
    if (image_bytes(width, height, in_stride) == 0 || image_bytes(width, height, out_stride) == 0)
        return SL_BAD_STRIDE;
    memset(frame, 0, sizeof *frame);
    frame->model = model;
    frame->rgb_in = rgb_in;
    frame->in_stride = in_stride;
    frame->rgb_out = rgb_out;
    frame->out_stride = out_stride;
    frame->width = width;
    frame->height = height;
    frame->trace = trace;
    frame->context = context;
    return SL_OK;
}

sl_status sl_run(const sl_model *model, const uint8_t *rgb_in, size_t in_stride, uint8_t *rgb_out,
                 size_t out_stride, uint32_t width, uint32_t height, void *arena,
                 size_t arena_bytes, sl_trace_fn trace, void *context)
{
    sl_frame frame;
    sl_status status;

    if (arena == NULL) return SL_NULL_ARGUMENT;
    status = sl_request(&frame, model, rgb_in, in_stride, rgb_out, out_stride, width, height, trace,
                        context);
    if (status != SL_OK) return status;
    if (sl_meets_images(&frame, arena, arena_bytes)) return SL_MEMORY_OVERLAPS;
    if (sl_images_overlap(&frame) &&
        !(rgb_in == rgb_out && in_stride == out_stride && may_run_in_place(model, trace)))
        return SL_MEMORY_OVERLAPS;
    frame.arena = (int8_t *)arena;
    return sl_run_frame(&frame, arena_bytes);
}
