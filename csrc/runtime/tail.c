/* TAIL: 3x3 to the residual, subtracted from the image at the image's own precision. Pixels of the
 * padding are computed for a trace alone. */
#include <string.h>

#include "intmath.h"
#include "layer_job.h"

typedef uint8_t tile_rgb[SL_TILE_PIXELS * SL_IMAGE_CHANNELS];

static void subtract(const sl_job *job, const sl_lanes *lanes, const sl_tile *tile, tile_rgb rgb)
{
    uint32_t p, lane;

    for (p = 0; p < tile->pixels; p++) {
        const uint8_t *pixel = sl_image_pixel(job->frame, tile->y, tile->x + p);
        for (lane = 0; lane < lanes->count; lane++) {
            const uint32_t c = lanes->first + lane;
            const int32_t acc = tile->acc[p * job->block + lane];
            rgb[p * SL_IMAGE_CHANNELS + c] =
                job->multiplies ? sl_multiplier_tail_pixel(pixel[c], acc, lanes->multiplier[lane],
                                                           lanes->shift[lane])
                                : sl_tail_pixel(pixel[c], acc, lanes->shift[lane]);
        }
    }
}

static void put_out(const sl_job *job, const sl_tile *tile, const tile_rgb rgb)
{
    const sl_frame *frame = job->frame;

    if (frame->rgb_out != NULL && tile->y < frame->height && tile->x < frame->width) {
        const uint32_t left = frame->width - tile->x;
        const uint32_t pixels = tile->pixels < left ? tile->pixels : left;
        memcpy(frame->rgb_out + tile->y * frame->out_stride + (size_t)tile->x * SL_IMAGE_CHANNELS,
               rgb, (size_t)pixels * SL_IMAGE_CHANNELS);
    }
    if (frame->trace != NULL) {
        sl_trace piece;
        piece.layer = job->index;
        piece.height = job->out_height;
        piece.width = job->out_width;
        piece.channels = SL_IMAGE_CHANNELS;
        piece.y = tile->y;
        piece.x = tile->x;
        piece.pixels = tile->pixels;
        piece.pixel_stride = SL_IMAGE_CHANNELS;
        piece.value_bytes = 1;
        piece.values = rgb;
        frame->trace(frame->context, &piece);
    }
}

void sl_tail(const sl_job *job)
{
    const sl_region region = job->region;
    sl_lanes lanes;
    sl_tile tile;
    tile_rgb rgb;
    uint32_t first;

    sl_load_lanes(job, 0, &lanes);
    for (tile.y = region.top; tile.y < region.bottom; tile.y++)
        for (tile.x = region.left; tile.x < region.right; tile.x += tile.pixels) {
            for (first = 0; first < SL_IMAGE_CHANNELS; first += job->block) {
                /* Blocks of fewer lanes than an image's take turns. */
                if (lanes.first != first) sl_load_lanes(job, first, &lanes);
                sl_accumulate(job, &lanes, &tile);
                subtract(job, &lanes, &tile, rgb);
            }
            put_out(job, &tile, rgb);
        }
}
