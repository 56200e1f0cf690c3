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
            rgb[p * SL_IMAGE_CHANNELS + c] =
                sl_tail_pixel(pixel[c], tile->acc[p * job->block + lane], lanes->shift[lane]);
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
        piece.values = rgb;
        frame->trace(frame->context, &piece);
    }
}

void sl_tail(const sl_job *job)
{
    const sl_region region = job->region;
    sl_lanes blocks[SL_IMAGE_CHANNELS];
    sl_tile tile;
    tile_rgb rgb;
    uint32_t first;

    for (first = 0; first < SL_IMAGE_CHANNELS; first += job->block)
        sl_load_lanes(job, first, &blocks[first]);
    for (tile.y = region.top; tile.y < region.bottom; tile.y++)
        for (tile.x = region.left; tile.x < region.right; tile.x += tile.pixels) {
            for (first = 0; first < SL_IMAGE_CHANNELS; first += job->block) {
                sl_accumulate(job, &blocks[first], &tile);
                subtract(job, &blocks[first], &tile, rgb);
            }
            put_out(job, &tile, rgb);
        }
}
