/* A layer of a run with its addresses resolved, and the stages that its operation is made of. */
#ifndef SL_LAYER_JOB_H
#define SL_LAYER_JOB_H

#include "starlight_hooks.h"

#define SL_TILE_PIXELS 4 /* pixels of a row that go through the taps together */

typedef struct sl_frame {
    const sl_model *model;
    const uint8_t *rgb_in;
    size_t in_stride;
    uint8_t *rgb_out; /* NULL: the output goes to the trace alone */
    size_t out_stride;
    uint32_t width, height;               /* of the image */
    uint32_t padded_width, padded_height; /* multiples of the grid */
    size_t cells;
    int8_t *arena;
    sl_trace_fn trace; /* may be NULL */
    void *context;
} sl_frame;

/* A view with its address, of a map of height x width pixels: sl_at gives pixel (y, x), sl_value
 * and sl_put its values. Memory holds `rows` rows as a ring, of `columns` pixels from column `left`
 * on; the whole map when it is not a window. The image has no address: data is NULL, and its pixels
 * are made on the fly. */
typedef struct sl_map {
    int8_t *data;
    uint32_t height, width;
    uint32_t rows, columns, left;
    uint32_t channels, channel_offset;
    uint32_t value_bytes; /* 1; 2 for 16 bits, little-endian on every host; 0 of an absent map */
    size_t pixel_stride, pixel_bytes; /* from pixel to pixel, in values and in bytes */
} sl_map;

typedef struct sl_job {
    const sl_frame *frame;
    sl_layer_record layer;
    uint32_t index;
    int tile;              /* of a stripe plan; else the whole frame */
    const int8_t *weights; /* int8 [blocks][k][k][in_channels][block] */
    uint32_t block;
    int multiplies;                 /* in multiplier arithmetic */
    int wide;                       /* that, or the output or the join has 16 bits */
    int32_t low, high;              /* ends of the output's clamp */
    uint32_t out_height, out_width; /* of the accumulators; UP spreads each over 2 x 2 pixels */
    sl_region region;               /* of the accumulators that the job makes */
    sl_region traced;               /* of the output that it reports */
    sl_map input, join, output;
} sl_job;

/* One block of output channels: its weights [k][k][in_channels][block] and numbers. */
typedef struct sl_lanes {
    const int8_t *weights;
    uint32_t first, count; /* channels [first, first + count) */
    int32_t bias[SL_CHANNEL_BLOCK_MAX];
    uint8_t shift[SL_CHANNEL_BLOCK_MAX];
    uint8_t join_shift[SL_CHANNEL_BLOCK_MAX];
    uint32_t multiplier[SL_CHANNEL_BLOCK_MAX]; /* in multiplier arithmetic */
    uint32_t join_multiplier[SL_CHANNEL_BLOCK_MAX];
} sl_lanes;

/* Accumulators, bias included, of `pixels` pixels of a row: acc[p * block + lane]. */
typedef struct sl_tile {
    uint32_t y, x, pixels;
    int32_t acc[SL_TILE_PIXELS * SL_CHANNEL_BLOCK_MAX];
} sl_tile;

void sl_load_lanes(const sl_job *job, uint32_t first, sl_lanes *lanes);

/* Fill tile->acc and choose tile->pixels, for the tile at (tile->y, tile->x). */
void sl_accumulate(const sl_job *job, const sl_lanes *lanes, sl_tile *tile);

/* Where the view's channels of pixel (y, x) lie. */
static inline int8_t *sl_at(const sl_map *map, uint32_t y, uint32_t x)
{
    const size_t row = y < map->rows ? y : y % map->rows;
    return map->data + (row * map->columns + (x - map->left)) * map->pixel_bytes;
}

/* The int16 in two little-endian bytes. */
static inline int32_t sl_load_i16(const int8_t *at)
{
    const uint32_t bits = (uint8_t)at[0] | (uint32_t)(uint8_t)at[1] << 8;
    return (int32_t)(bits ^ 0x8000u) - 0x8000;
}

/* Value c of a pixel that lies at `at`. */
static inline int32_t sl_value(const sl_map *map, const int8_t *at, size_t c)
{
    return map->value_bytes == 1 ? at[c] : sl_load_i16(at + 2 * c);
}

static inline void sl_put(const sl_map *map, int8_t *at, size_t c, int32_t value)
{
    if (map->value_bytes == 1) {
        at[c] = (int8_t)value;
    } else {
        uint8_t *to = (uint8_t *)at + 2 * c;
        to[0] = (uint8_t)((uint32_t)value & 0xFFu);
        to[1] = (uint8_t)((uint32_t)value >> 8 & 0xFFu);
    }
}

/* The view's channels of pixel (y, x); those of the image are made in `made`. */
const int8_t *sl_pixel(const sl_frame *frame, const sl_map *map, uint32_t y, uint32_t x,
                       int8_t made[3]);

/* The pixel of the image that stands at (y, x) of the padded one. */
const uint8_t *sl_image_pixel(const sl_frame *frame, uint32_t y, uint32_t x);

/* The output's value of one accumulator and what joins it (0 without a join), whatever the widths
 * and the arithmetic. */
int32_t sl_requantised(const sl_job *job, const sl_lanes *lanes, uint32_t lane, int32_t acc,
                       int32_t q);

/* Let a map of `buffer` begin at value `first` of the pixels at `address`, which are `stride`
 * values each. */
void sl_place_map(sl_map *map, int8_t *address, const sl_buffer_record *buffer, uint32_t stride,
                  uint32_t first, uint32_t channels);

/* What follows from the job's maps and its model: the arithmetic, and the clamp of the output. */
void sl_choose_arithmetic(sl_job *job);

/* The operations; each makes the job's region. */
void sl_conv(const sl_job *job); /* CONV3X3, CONV3X3_STRIDE2, CONV1X1 */
void sl_up(const sl_job *job);
void sl_tail(const sl_job *job);

/* Ask the model's hooks; 1 when one of them has made the job's region. */
int sl_offer(const sl_job *job);
/* Make the job's region, by a hook or here, and report what is traced. */
void sl_run_job(const sl_job *job);

/* Sizes of a frame whose width and height are set; SL_IMAGE_TOO_LARGE beyond the memory. */
sl_status sl_size_frame(sl_frame *frame, uint32_t bytes_per_cell, size_t *bytes);

/* Whether sl_run may take these images and memory; fills the frame but its arena. */
sl_status sl_request(sl_frame *frame, const sl_model *model, const uint8_t *rgb_in,
                     size_t in_stride, uint8_t *rgb_out, size_t out_stride, uint32_t width,
                     uint32_t height, sl_trace_fn trace, void *context);

/* Whether memory meets either image of a frame; whether these two overlap. */
int sl_meets_images(const sl_frame *frame, const void *memory, size_t bytes);
int sl_images_overlap(const sl_frame *frame);
int sl_overlap(const void *one, size_t one_bytes, const void *other, size_t other_bytes);

/* Run an opened model on a frame within the chip's largest; rgb_out may be NULL. */
sl_status sl_run_frame(const sl_frame *request, size_t arena_bytes);

#endif
