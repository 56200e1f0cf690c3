/* Hooks: a team's hardware in the place of the runtime's own layers.
 *
 * A hook is asked before each layer of its operation, by a stripe plan before each tile of it; it
 * makes the region that it is asked for, or declines and the runtime does. So hardware comes in one
 * operation at a time, and what it cannot do (a size, a busy engine, a fault half-way) falls back
 * to software with the same bits. sl_self_test runs through the hooks too: it proves the hardware
 * layer by layer; a traced sl_run_planned does it tile by tile.
 *
 *     static const sl_hooks HOOKS = {.ops = {[SL_OP_CONV3X3] = my_conv, [SL_OP_UP] = my_up},
 *                                    .tiles = {[SL_OP_CONV3X3] = my_conv}, .context = &me};
 *     sl_open(&model, bundle, bundle_bytes);
 *     sl_attach(&model, &HOOKS);
 *     sl_self_test(&model, arena, arena_bytes, &layer);
 *
 * csrc/npu is a hook for an engine behind registers (docs/FIRMWARE.md). */
#ifndef STARLIGHT_HOOKS_H
#define STARLIGHT_HOOKS_H

#include "contract_constants.h"
#include "starlight_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Pixels [top, bottom) x [left, right). */
typedef struct sl_region {
    uint32_t top, bottom, left, right;
} sl_region;

/* Channels of a buffer, of a map of height x width pixels: channel c of pixel (y, x) is
 * data[((y % rows) * columns + (x - left)) * pixel_stride + c]; with value_bytes 2 an int16 whose
 * low byte is data[2 * (...)], on every host. In a tile, memory is a window: a ring of `rows` rows,
 * of `columns` pixels from column `left` on, which holds what the region needs; beyond the map's
 * own size lies the padding, which is zero. Of a whole frame rows is height, columns is width and
 * left is 0. An absent tensor is all zero. Of the image `data` is NULL and `height` is not 0: its
 * pixel (y, x), beyond its own size that of its last row and column, counts as pixel - 128, from
 * channel `channel_offset` on. */
typedef struct sl_tensor {
    int8_t *data;
    uint32_t height, width;
    uint32_t channels, channel_offset;
    size_t pixel_stride;
    uint32_t rows, columns, left;
    uint32_t value_bytes; /* 1 or 2 */
} sl_tensor;

/* One layer on one frame, or one tile of it. What it computes is in docs/FORMAT.md and
 * docs/NUMERICS.md. */
typedef struct sl_hook_job {
    const sl_model *model;
    uint32_t index; /* of the layer, in execution order */
    sl_layer_record layer;
    const int8_t *weights;      /* layer.weight_bytes bytes in streaming order */
    const uint8_t *channels;    /* layer.out_channels records as they lie in the bundle */
    const uint8_t *multipliers; /* likewise, those of MULT; NULL in dyadic arithmetic */
    sl_tensor input, join, output;
    sl_region region; /* to be made, in pixels of what is written: of the output, for the tail of
                       * the image; even at every end for UP; never empty */
    const uint8_t *image; /* uint8 [image_height][image_width][3] */
    size_t image_stride;  /* bytes from row to row */
    uint32_t image_height, image_width;
    uint8_t *result; /* of the tail alone: uint8 of the image's size; may be `image` itself, then
                      * each pixel is read before it is written */
    size_t result_stride;
} sl_hook_job;

typedef enum sl_hook_answer {
    SL_HOOK_DECLINED = 0, /* the runtime does the layer; the region may hold anything by now */
    SL_HOOK_DONE = 1      /* every value of the region is written and visible to the CPU, and no
                           * other one */
} sl_hook_answer;

typedef sl_hook_answer (*sl_hook)(void *context, const sl_hook_job *job);

typedef struct sl_hooks {
    sl_hook ops[SL_OP_TAIL + 1]; /* for whole frames, by operation id; NULL: never asked */
    void *context;               /* the hooks' own; given to each call */
    int wide; /* 1: also asked for layers that read, join or write 16 bits or take multipliers; 0:
               * all that hooks meet is of 8 bits and dyadic */
    sl_hook tiles[SL_OP_TAIL + 1]; /* for the tiles of a stripe plan; one that works by region and
                                    * windows can stand in both */
} sl_hooks;

/* Ask `hooks`, which must outlive the model, from now on; NULL: none. Call it before threads share
 * the model: they share the hooks too. The tail is
 * offered when it writes an image and nobody traces it: a trace, and so sl_self_test, sees its
 * padding too, which has no place in an image. */
sl_status sl_attach(sl_model *model, const sl_hooks *hooks);

#ifdef __cplusplus
}
#endif

#endif
