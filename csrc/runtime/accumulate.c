/* From input pixels to accumulators: where all the time goes.
 *
 * A tile of output pixels walks the taps of its window; at each tap every input channel of a pixel
 * meets one row of `block` weights. Window parts outside the padded image are skipped: zero padding
 * adds nothing. The sums are exact in int32 whatever their order (sl_open has proven it). */
#include <string.h>

#include "intmath.h"
#include "layer_job.h"

/* acc[p][lane] += sum over c of x[p][c] * weights[c][lane]; pixels lie pixel_bytes apart, of values
 * of two bytes when `wide` */
static inline void multiply_rows(int32_t *acc, const int8_t *x, size_t pixel_bytes,
                                 const int8_t *weights, size_t channels, const uint32_t block,
                                 uint32_t pixels, const int wide)
{
    for (; pixels > 0; pixels--, x += pixel_bytes, acc += block) {
        const int8_t *row = weights;
        int32_t sum[SL_CHANNEL_BLOCK_MAX];
        uint32_t lane;
        size_t c;

        for (lane = 0; lane < block; lane++)
            sum[lane] = acc[lane];
        for (c = 0; c < channels; c++, row += block) {
            const int32_t value = wide ? sl_load_i16(x + 2 * c) : x[c];
            for (lane = 0; lane < block; lane++)
                sum[lane] += value * row[lane];
        }
        for (lane = 0; lane < block; lane++)
            acc[lane] = sum[lane];
    }
}

/* The same with the usual blocks as constants, so that the sums stay in registers. */
static void multiply(int32_t *acc, const int8_t *x, size_t pixel_bytes, const int8_t *weights,
                     size_t channels, uint32_t block, uint32_t pixels)
{
    switch (block) {
    case 8: multiply_rows(acc, x, pixel_bytes, weights, channels, 8, pixels, 0); break;
    case 16: multiply_rows(acc, x, pixel_bytes, weights, channels, 16, pixels, 0); break;
    case 32: multiply_rows(acc, x, pixel_bytes, weights, channels, 32, pixels, 0); break;
    default: multiply_rows(acc, x, pixel_bytes, weights, channels, block, pixels, 0); break;
    }
}

static void multiply_wide(int32_t *acc, const int8_t *x, size_t pixel_bytes, const int8_t *weights,
                          size_t channels, uint32_t block, uint32_t pixels)
{
    switch (block) {
    case 8: multiply_rows(acc, x, pixel_bytes, weights, channels, 8, pixels, 1); break;
    case 16: multiply_rows(acc, x, pixel_bytes, weights, channels, 16, pixels, 1); break;
    case 32: multiply_rows(acc, x, pixel_bytes, weights, channels, 32, pixels, 1); break;
    default: multiply_rows(acc, x, pixel_bytes, weights, channels, block, pixels, 1); break;
    }
}

void sl_load_lanes(const sl_job *job, uint32_t first, sl_lanes *lanes)
{
    const size_t taps = (size_t)job->layer.kernel * job->layer.kernel * job->layer.in_channels;
    const uint32_t left = job->layer.out_channels - first;
    uint32_t lane;

    memset(lanes, 0, sizeof *lanes);
    lanes->weights = job->weights + first * taps;
    lanes->first = first;
    lanes->count = left < job->block ? left : job->block;
    for (lane = 0; lane < lanes->count; lane++) {
        const sl_channel_record channel =
            sl_channel(job->frame->model, job->layer.channel_row + first + lane);
        lanes->bias[lane] = channel.bias;
        lanes->shift[lane] = channel.shift;
        lanes->join_shift[lane] = channel.join_shift;
        if (job->multiplies) {
            const sl_multiplier_record multiplier =
                sl_multiplier(job->frame->model, job->layer.channel_row + first + lane);
            lanes->shift[lane] = multiplier.shift;
            lanes->multiplier[lane] = multiplier.multiplier;
            lanes->join_multiplier[lane] = multiplier.join_multiplier;
        }
    }
}

const uint8_t *sl_image_pixel(const sl_frame *frame, uint32_t y, uint32_t x)
{
    const size_t row = y < frame->height ? y : frame->height - 1;
    const size_t column = x < frame->width ? x : frame->width - 1;
    return frame->rgb_in + row * frame->in_stride + column * SL_IMAGE_CHANNELS;
}

const int8_t *sl_pixel(const sl_frame *frame, const sl_map *map, uint32_t y, uint32_t x,
                       int8_t made[3])
{
    const uint8_t *rgb;
    uint32_t c;

    if (map->data != NULL) return sl_at(map, y, x);
    rgb = sl_image_pixel(frame, y, x) + map->channel_offset;
    for (c = 0; c < map->channels; c++)
        made[c] = sl_quantise_pixel(rgb[c]);
    return made;
}

/* Taps [first, end) of `kernel` that lie within `size` pixels when tap 0 stands at `start`. */
typedef struct tap_range {
    uint32_t first, end;
} tap_range;

static tap_range taps_within(int64_t start, uint32_t kernel, uint32_t size)
{
    tap_range range;
    range.first = start < 0 ? (uint32_t)-start : 0;
    range.end = start + kernel > size ? (uint32_t)(size - start) : kernel;
    return range;
}

/* The image is gathered window by window, zeros outside the padded image. */
static void accumulate_image(const sl_job *job, const sl_lanes *lanes, sl_tile *tile, int64_t top,
                             int64_t left)
{
    const uint32_t kernel = job->layer.kernel;
    const uint32_t channels = job->input.channels;
    int8_t window[3 * 3 * SL_IMAGE_CHANNELS];
    const tap_range rows = taps_within(top, kernel, job->input.height);
    const tap_range columns = taps_within(left, kernel, job->input.width);
    uint32_t ky, kx;

    memset(window, 0, sizeof window);
    for (ky = rows.first; ky < rows.end; ky++)
        for (kx = columns.first; kx < columns.end; kx++)
            (void)sl_pixel(job->frame, &job->input, (uint32_t)(top + ky), (uint32_t)(left + kx),
                           window + (ky * kernel + kx) * channels);
    tile->pixels = 1;
    multiply(tile->acc, window, 0, lanes->weights, (size_t)kernel * kernel * channels, job->block,
             1);
}

static void accumulate_map(const sl_job *job, const sl_lanes *lanes, sl_tile *tile, int64_t top,
                           int64_t left)
{
    const sl_map *input = &job->input;
    const uint32_t kernel = job->layer.kernel;
    const uint32_t stride = job->layer.stride;
    const size_t tap_bytes = (size_t)input->channels * job->block;
    const int64_t reach = left + (int64_t)(SL_TILE_PIXELS - 1) * stride + kernel;
    const int inside = left >= 0 && reach <= input->width &&
                       (uint64_t)tile->x + SL_TILE_PIXELS <= job->region.right;
    const tap_range rows = taps_within(top, kernel, input->height);
    const tap_range columns = taps_within(left, kernel, input->width);
    uint32_t ky, kx;

    tile->pixels = inside ? SL_TILE_PIXELS : 1;
    for (ky = rows.first; ky < rows.end; ky++) {
        for (kx = columns.first; kx < columns.end; kx++) {
            const int8_t *x = sl_at(input, (uint32_t)(top + ky), (uint32_t)(left + kx));
            const int8_t *weights = lanes->weights + (ky * kernel + kx) * tap_bytes;
            if (input->value_bytes == 1)
                multiply(tile->acc, x, stride * input->pixel_bytes, weights, input->channels,
                         job->block, tile->pixels);
            else
                multiply_wide(tile->acc, x, stride * input->pixel_bytes, weights, input->channels,
                              job->block, tile->pixels);
        }
    }
}

void sl_accumulate(const sl_job *job, const sl_lanes *lanes, sl_tile *tile)
{
    const int64_t pad = job->layer.kernel / 2;
    const int64_t top = (int64_t)tile->y * job->layer.stride - pad;
    const int64_t left = (int64_t)tile->x * job->layer.stride - pad;
    uint32_t p;

    for (p = 0; p < SL_TILE_PIXELS; p++)
        memcpy(tile->acc + p * job->block, lanes->bias, job->block * sizeof lanes->bias[0]);
    if (job->input.data == NULL)
        accumulate_image(job, lanes, tile, top, left);
    else
        accumulate_map(job, lanes, tile, top, left);
}
