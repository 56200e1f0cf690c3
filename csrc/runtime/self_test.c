/* The bundle's own test vectors: the first layer whose output differs is the one at fault. */
#include <string.h>

#include "contract_constants.h"
#include "layer_job.h"
#include "open.h"

typedef struct comparison {
    uint32_t width, height;
    uint32_t tail;         /* index of the last layer */
    const uint8_t *crcs;   /* u32 per layer, little-endian */
    const uint8_t *output; /* u8 [height][width][3] */
    uint32_t crc;          /* of the layer that is being traced, so far */
    int differs;
    uint32_t layer; /* the first that differs */
} comparison;

static void refuse(comparison *test, uint32_t layer)
{
    if (!test->differs) test->layer = layer;
    test->differs = 1;
}

static void compare_output(comparison *test, const sl_trace *piece)
{
    const size_t place = ((size_t)piece->y * test->width + piece->x) * SL_IMAGE_CHANNELS;
    const uint32_t left = piece->x < test->width ? test->width - piece->x : 0;
    const uint32_t pixels = piece->pixels < left ? piece->pixels : left;

    if (piece->y < test->height && pixels > 0 &&
        memcmp(piece->values, test->output + place, (size_t)pixels * SL_IMAGE_CHANNELS) != 0)
        refuse(test, piece->layer);
}

static void compare(void *context, const sl_trace *piece)
{
    comparison *test = (comparison *)context;
    uint32_t p;

    if (piece->y == 0 && piece->x == 0) test->crc = 0;
    for (p = 0; p < piece->pixels; p++)
        test->crc =
            sl_crc32(test->crc, piece->values + p * piece->pixel_stride * piece->value_bytes,
                     (size_t)piece->channels * piece->value_bytes);
    if (piece->layer == test->tail) compare_output(test, piece);
    if (piece->y == piece->height - 1 && piece->x + piece->pixels == piece->width) {
        const uint8_t *expected = test->crcs + (size_t)piece->layer * sizeof(uint32_t);
        if (test->crc != sl_load_u32(expected)) refuse(test, piece->layer);
    }
}

sl_status sl_self_test(const sl_model *model, void *arena, size_t arena_bytes, uint32_t *layer)
{
    sl_vectors_record vectors;
    comparison test;
    sl_frame frame;
    sl_status status;

    if (model == NULL || arena == NULL) return SL_NULL_ARGUMENT;
    vectors = sl_vectors(model);
    memset(&test, 0, sizeof test);
    memset(&frame, 0, sizeof frame);
    frame.model = model;
    frame.width = test.width = vectors.width;
    frame.height = test.height = vectors.height;
    frame.in_stride = (size_t)vectors.width * SL_IMAGE_CHANNELS;
    test.tail = vectors.layer_count - 1;
    test.crcs = model->vectors.data + sizeof vectors;
    frame.rgb_in = test.crcs + (size_t)vectors.layer_count * sizeof(uint32_t);
    test.output = frame.rgb_in + frame.in_stride * vectors.height;
    frame.arena = (int8_t *)arena;
    frame.trace = compare;
    frame.context = &test;
    if ((status = sl_run_frame(&frame, arena_bytes)) != SL_OK) return status;
    if (!test.differs) return SL_OK;
    if (layer != NULL) *layer = test.layer;
    return SL_SELF_TEST_FAILED;
}
