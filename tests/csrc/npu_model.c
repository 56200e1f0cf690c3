#include "npu_model.h"

#include <string.h>

enum { CONV3X3 = 1, CONV3X3_STRIDE2, CONV1X1, UP, TAIL };
enum { BAD_OPERATION = 1, BAD_BLOCK, BAD_SIZE };

/* A map as six registers describe it; of the image `bytes` is NULL. */
typedef struct map {
    int8_t *bytes;
    int64_t height, width, channels, stride;
    uint32_t offset;
} map;

static uint32_t word(const npu_model *engine, uint32_t offset)
{
    return engine->words[offset / 4];
}

static uint32_t field(const npu_model *engine, uint32_t mask, unsigned shift)
{
    return (word(engine, NPU_LAYER) & mask) >> shift;
}

static void *memory_at(const npu_model *engine, uint32_t low)
{
    const uint64_t address = word(engine, low) | (uint64_t)word(engine, low + 4) << 32;
    return (void *)(uintptr_t)address;
}

static map map_at(const npu_model *engine, uint32_t base, int image, uint32_t offset)
{
    map found;

    found.bytes = image ? NULL : (int8_t *)memory_at(engine, base);
    found.height = word(engine, base + 8);
    found.width = word(engine, base + 12);
    found.channels = word(engine, base + 16);
    found.stride = word(engine, base + 20);
    found.offset = offset;
    return found;
}

static const uint8_t *image_pixel(const npu_model *engine, int64_t y, int64_t x)
{
    const int64_t rows = word(engine, NPU_IMAGE_HEIGHT), columns = word(engine, NPU_IMAGE_WIDTH);
    const uint8_t *image = (const uint8_t *)memory_at(engine, NPU_IMAGE_LO);

    if (y >= rows) y = rows - 1;
    if (x >= columns) x = columns - 1;
    return image + y * (int64_t)word(engine, NPU_IMAGE_STRIDE) + 3 * x;
}

/* Channel c at (y, x): 0 outside. */
static int32_t value(const npu_model *engine, const map *from, int64_t y, int64_t x, int64_t c)
{
    if (y < 0 || x < 0 || y >= from->height || x >= from->width) return 0;
    if (from->bytes == NULL) return image_pixel(engine, y, x)[from->offset + c] - 128;
    return from->bytes[(y * from->width + x) * from->stride + c];
}

static int64_t power(unsigned bits)
{
    return INT64_C(1) << bits;
}

static int64_t floor_divide(int64_t value, int64_t by)
{
    return value >= 0 ? value / by : -((by - 1 - value) / by);
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void compute(npu_model *engine)
{
    const uint32_t op = field(engine, NPU_LAYER_OP_MASK, NPU_LAYER_OP_SHIFT);
    const uint32_t low = field(engine, NPU_LAYER_RELU_MASK, NPU_LAYER_RELU_SHIFT);
    const uint32_t joins = field(engine, NPU_LAYER_JOIN_MASK, NPU_LAYER_JOIN_SHIFT);
    const map input =
        map_at(engine, NPU_INPUT_ADDRESS_LO,
               (int)field(engine, NPU_LAYER_IMAGE_INPUT_MASK, NPU_LAYER_IMAGE_INPUT_SHIFT),
               field(engine, NPU_LAYER_INPUT_OFFSET_MASK, NPU_LAYER_INPUT_OFFSET_SHIFT));
    const map join =
        map_at(engine, NPU_JOIN_ADDRESS_LO,
               (int)field(engine, NPU_LAYER_IMAGE_JOIN_MASK, NPU_LAYER_IMAGE_JOIN_SHIFT),
               field(engine, NPU_LAYER_JOIN_OFFSET_MASK, NPU_LAYER_JOIN_OFFSET_SHIFT));
    const map output = map_at(engine, NPU_OUTPUT_ADDRESS_LO, 0, 0);
    const int8_t *weights = (const int8_t *)memory_at(engine, NPU_WEIGHTS_LO);
    const uint8_t *rows = (const uint8_t *)memory_at(engine, NPU_CHANNELS_LO);
    uint8_t *result = (uint8_t *)memory_at(engine, NPU_RESULT_LO);
    const int64_t lanes = word(engine, NPU_CHANNEL_BLOCK), outs = word(engine, NPU_OUT_CHANNELS);
    const int64_t kernel = op == CONV1X1 || op == UP ? 1 : 3, step = op == CONV3X3_STRIDE2 ? 2 : 1;
    int64_t y, x, o, ky, kx, i;

    for (y = 0; y < input.height / step; y++)
        for (x = 0; x < input.width / step; x++)
            for (o = 0; o < outs; o++) {
                const uint8_t *row = rows + 8 * o;
                int64_t acc = (int32_t)(row[0] | (uint32_t)row[1] << 8 | (uint32_t)row[2] << 16 |
                                        (uint32_t)row[3] << 24);
                int64_t oy = y, ox = x, oc = o;

                for (ky = 0; ky < kernel; ky++)
                    for (kx = 0; kx < kernel; kx++)
                        for (i = 0; i < input.channels; i++)
                            acc += value(engine, &input, step * y + ky - kernel / 2,
                                         step * x + kx - kernel / 2, i) *
                                   weights[(((o / lanes * kernel + ky) * kernel + kx) *
                                                input.channels +
                                            i) *
                                               lanes +
                                           o % lanes];
                if (op == UP) {
                    oy = 2 * y + o % 4 / 2;
                    ox = 2 * x + o % 2;
                    oc = o / 4;
                }
                if (joins) acc += value(engine, &join, oy, ox, oc) * power(row[5]);
                acc = floor_divide(acc + power(row[4] - 1u), power(row[4]));
                if (op != TAIL)
                    output.bytes[(oy * output.width + ox) * output.stride + oc] =
                        (int8_t)clamp(acc, low ? 0 : -128, 127);
                else if (y < word(engine, NPU_IMAGE_HEIGHT) && x < word(engine, NPU_IMAGE_WIDTH))
                    result[y * word(engine, NPU_RESULT_STRIDE) + 3 * x + o] =
                        (uint8_t)clamp(image_pixel(engine, y, x)[o] - acc, 0, 255);
            }
}

static uint32_t refusal(const npu_model *engine)
{
    const uint32_t op = field(engine, NPU_LAYER_OP_MASK, NPU_LAYER_OP_SHIFT);
    const uint32_t lanes = word(engine, NPU_CHANNEL_BLOCK);

    if (op < CONV3X3 || op > TAIL || (engine->known_ops >> op & 1) == 0) return BAD_OPERATION;
    if (lanes == 0 || lanes > 64 || (lanes & (lanes - 1)) != 0) return BAD_BLOCK;
    if (word(engine, NPU_INPUT_HEIGHT) == 0 || word(engine, NPU_INPUT_WIDTH) == 0 ||
        word(engine, NPU_INPUT_CHANNELS) == 0 || word(engine, NPU_OUT_CHANNELS) == 0)
        return BAD_SIZE;
    return 0;
}

static void command(npu_model *engine, uint32_t value)
{
    uint32_t *status = &engine->words[NPU_STATUS / 4];

    if ((value & (NPU_CONTROL_CLEAR_MASK | NPU_CONTROL_RESET_MASK)) != 0) *status = 0;
    if ((value & NPU_CONTROL_START_MASK) != 0 && (*status & NPU_STATUS_BUSY_MASK) == 0) {
        engine->started++;
        engine->left = engine->latency;
        *status = NPU_STATUS_BUSY_MASK;
    }
}

static void advance(npu_model *engine)
{
    uint32_t *status = &engine->words[NPU_STATUS / 4];
    const uint32_t cause = refusal(engine);

    if ((*status & NPU_STATUS_BUSY_MASK) == 0 || engine->started == engine->hangs_at) return;
    if (engine->left > 0) {
        engine->left--;
        return;
    }
    if (cause != 0) {
        *status = NPU_STATUS_ERROR_MASK | cause << NPU_STATUS_CAUSE_SHIFT;
        return;
    }
    compute(engine);
    *status = NPU_STATUS_DONE_MASK;
}

void npu_model_reset(npu_model *engine)
{
    memset(engine, 0, sizeof *engine);
    engine->words[NPU_ID / 4] = NPU_ID_RESET;
    engine->words[NPU_VERSION / 4] = NPU_VERSION_RESET;
    engine->known_ops = UINT32_MAX;
}

uint32_t npu_model_read(void *context, uint32_t offset)
{
    npu_model *engine = (npu_model *)context;
    if (offset == NPU_STATUS) advance(engine);
    return offset < NPU_BYTES && offset % 4 == 0 ? engine->words[offset / 4] : 0;
}

void npu_model_write(void *context, uint32_t offset, uint32_t value)
{
    npu_model *engine = (npu_model *)context;
    const int busy = (engine->words[NPU_STATUS / 4] & NPU_STATUS_BUSY_MASK) != 0;

    if (offset >= NPU_BYTES || offset % 4 != 0 || offset == NPU_ID || offset == NPU_VERSION ||
        offset == NPU_STATUS || (busy && offset != NPU_CONTROL)) {
        engine->misuse++;
        return;
    }
    engine->written[offset / 4]++;
    if (offset == NPU_CONTROL)
        command(engine, value);
    else
        engine->words[offset / 4] = value;
}
