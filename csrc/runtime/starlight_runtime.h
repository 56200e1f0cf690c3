/* The firmware runtime: opens a bundle and runs it. C99; needs <string.h> of the C library alone.
 *
 * Nothing is allocated and no global is written: all state lies in sl_model (read-only after
 * sl_open, so it may be shared by threads), in the caller's arena and on the stack
 * (SL_STACK_BYTES). sl_open checks everything once; a model that it accepts runs on any image that
 * fits the chip without a further check per layer.
 *
 *     sl_model model;
 *     size_t need;
 *     if (sl_open(&model, bundle, bundle_bytes) != SL_OK) ...
 *     if (sl_arena_bytes(&model, width, height, &need) != SL_OK) ...
 *     status = sl_run(&model, in, in_stride, out, out_stride, width, height,
 *                     arena, need, NULL, NULL);
 */
#ifndef STARLIGHT_RUNTIME_H
#define STARLIGHT_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "bundle_format.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header and starlight_hooks.h: MAJOR * 1000 + MINOR. A new minor adds functions, a new
 * major changes what is there. */
#define SL_API_VERSION 2000u

/* Most stack that a call takes by the compiler's account, on every core of docs/FIRMWARE.md and on
 * x86-64; the C library, hooks and traces come on top. */
#define SL_STACK_BYTES 5120u

#define SL_FRAME_MAX 65535u /* widest and highest image that this runtime takes */

typedef enum sl_status {
    SL_OK = 0,
    SL_NULL_ARGUMENT,
    /* the container */
    SL_TRUNCATED,
    SL_BAD_SIZE,
    SL_BAD_MAGIC,
    SL_BAD_FORMAT_VERSION,
    SL_BAD_ARITHMETIC_VERSION,
    SL_BAD_HEADER_CRC,
    SL_BAD_HEADER,
    SL_BAD_TABLE_CRC,
    SL_BAD_TABLE,
    SL_UNKNOWN_REQUIRED_SECTION,
    SL_DUPLICATE_SECTION,
    SL_MISSING_SECTION,
    SL_BAD_SECTION_CRC,
    SL_BAD_PADDING,
    SL_BAD_TRAILER,
    /* the records */
    SL_RESERVED_FEATURE,
    SL_BAD_MODEL,
    SL_BAD_CHIP,
    SL_BAD_STRINGS,
    SL_BAD_BUFFER,
    SL_BAD_LAYER,
    SL_BAD_VIEW,
    SL_BAD_CHANNEL,
    SL_BAD_WEIGHTS,
    SL_BAD_VECTORS,
    SL_BAD_ACCUMULATOR,
    /* the dataflow */
    SL_BUFFER_OUTSIDE_ARENA,
    SL_BUFFERS_OVERLAP,
    SL_BAD_LIFETIME,
    SL_READ_BEFORE_WRITE,
    SL_WRITTEN_TWICE,
    /* the stripe plan */
    SL_BAD_PLAN,
    SL_BAD_PLAN_GROUP,
    /* a run */
    SL_IMAGE_EMPTY,
    SL_IMAGE_TOO_LARGE,
    SL_BAD_STRIDE,
    SL_ARENA_MISALIGNED,
    SL_ARENA_TOO_SMALL,
    SL_MEMORY_OVERLAPS,
    SL_NO_PLAN,
    SL_SELF_TEST_FAILED,
    /* compressed weights */
    SL_COMPRESSED,
    SL_BAD_COMPRESSION,
    SL_OUTPUT_TOO_SMALL,
    SL_STATUS_COUNT
} sl_status;

/* The SL_API_VERSION that the linked library was built from: firmware that links a library compares
 * it with its header's. */
uint32_t sl_api_version(void);

/* One line of English that states the rule that was broken; never NULL. */
const char *sl_status_text(sl_status status);

typedef struct sl_span {
    const uint8_t *data;
    size_t bytes;
} sl_span;

/* An opened bundle. It points into the bundle's bytes, which must outlive it unchanged. Read its
 * fields freely, write none. */
typedef struct sl_model {
    sl_model_record model;
    sl_chip_record chip;
    sl_span strings, buffers, layers, channels, weights, vectors;
    sl_span multipliers;          /* no bytes: dyadic arithmetic */
    const struct sl_hooks *hooks; /* NULL after sl_open; see sl_attach in starlight_hooks.h */
    sl_span plan;                 /* no bytes: the bundle has none */
    uint32_t format_major;
    uint32_t fault; /* after a refusal: index of the section, buffer, layer or channel at fault */
} sl_model;

/* Open the bundle of `size` bytes at `data` (any alignment), checking all of it: container, CRCs,
 * records, address plan, order of reads and writes, and from the weights themselves that no
 * accumulator can leave its width. On a refusal `model->fault` says where. */
sl_status sl_open(sl_model *model, const void *data, size_t size);

/* The plain bundle out of one whose weights are compressed (section WRIC), byte for byte, into
 * `out`.
 * `*written` is its size, also when `capacity` bytes are too few for it (SL_OUTPUT_TOO_SMALL): ask
 * with NULL and 0. The two must not overlap. Nothing but `out` is written, and of it nothing is a
 * bundle until SL_OK; sl_open checks the rest. */
sl_status sl_decompress(const void *packed, size_t bytes, void *out, size_t capacity,
                        size_t *written);

/* Bytes of arena that an image of width x height needs. The arena must be aligned to
 * model->chip.alignment. */
sl_status sl_arena_bytes(const sl_model *model, uint32_t width, uint32_t height, size_t *bytes);

/* A piece of a layer's output: `pixels` pixels of row y from column x. A layer reports its whole
 * output, padded to the grid; sl_run in raster order. Channel c of pixel p lies at
 * values[p * pixel_stride + c]: an int8 in two's complement; for the tail, a uint8 of the padded
 * output image. With value_bytes 2 it is an int16, its low byte at values[2 * (p * pixel_stride +
 * c)] on every host. */
typedef struct sl_trace {
    uint32_t layer; /* index in execution order */
    uint32_t height, width, channels;
    uint32_t y, x, pixels;
    size_t pixel_stride;
    uint32_t value_bytes; /* 1 or 2 */
    const uint8_t *values;
} sl_trace;

typedef void (*sl_trace_fn)(void *context, const sl_trace *piece);

/* Denoise rgb_in [height][width][3] into rgb_out, rows `in_stride` and `out_stride` bytes apart.
 * Without a trace rgb_out may be rgb_in at the same stride (unless the bundle's tail convolves
 * the image itself); otherwise the two images and the arena must not overlap. `trace` may be NULL.
 * The arena's content needs no preparation. */
sl_status sl_run(const sl_model *model, const uint8_t *rgb_in, size_t in_stride, uint8_t *rgb_out,
                 size_t out_stride, uint32_t width, uint32_t height, void *arena,
                 size_t arena_bytes, sl_trace_fn trace, void *context);

/* Bytes of SRAM and of DRAM that the bundle's stripe plan asks for an image of width x height;
 * those of SRAM do not depend on the image. SL_NO_PLAN when the bundle has none. Both must be
 * aligned to model->chip.alignment; DRAM may be 0 bytes. */
sl_status sl_plan_bytes(const sl_model *model, uint32_t width, uint32_t height, size_t *sram_bytes,
                        size_t *dram_bytes);

/* sl_run by the bundle's stripe plan (docs/PLANNER.md): layers read and write `sram` alone, tile by
 * tile; `dram` holds what passes from group to group. The same bits as sl_run. Images, sram and
 * dram must not overlap. A trace reports each pixel of a layer once for every group that the layer
 * stands in, in the order of tiles. */
sl_status sl_run_planned(const sl_model *model, const uint8_t *rgb_in, size_t in_stride,
                         uint8_t *rgb_out, size_t out_stride, uint32_t width, uint32_t height,
                         void *sram, size_t sram_bytes, void *dram, size_t dram_bytes,
                         sl_trace_fn trace, void *context);

/* Run the bundle's test vectors and compare every layer's CRC and the output. The arena must hold
 * the vectors' frame (sl_vectors). On SL_SELF_TEST_FAILED `*layer` is the first layer at fault;
 * `layer` may be NULL. */
sl_status sl_self_test(const sl_model *model, void *arena, size_t arena_bytes, uint32_t *layer);

/* Records of an opened model, copied out of the bundle; the index must be below its count. */
sl_layer_record sl_layer(const sl_model *model, uint32_t index);
sl_buffer_record sl_buffer(const sl_model *model, uint32_t index);
sl_channel_record sl_channel(const sl_model *model, uint32_t index);
sl_multiplier_record sl_multiplier(const sl_model *model, uint32_t index); /* if there are any */
sl_vectors_record sl_vectors(const sl_model *model);

/* The string at a record's `name`. */
const char *sl_name(const sl_model *model, uint32_t name);

/* CRC-32 (IEEE 802.3) of `bytes` bytes that follow those of `crc`; 0 to begin with. */
uint32_t sl_crc32(uint32_t crc, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
