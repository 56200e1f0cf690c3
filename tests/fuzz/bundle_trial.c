#include "bundle_trial.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_MAX (1u << 20)

unsigned met[SL_STATUS_COUNT];
static uint64_t state;

void seed_draws(uint64_t seed)
{
    state = seed;
}

uint64_t draw(uint64_t bound)
{
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (z ^ (z >> 31)) % bound;
}

void *allocate(size_t bytes)
{
    void *memory = malloc(bytes == 0 ? 1 : bytes);
    if (memory == NULL) exit(3);
    return memory;
}

/* Read every byte that the trace offers. */
static void read_piece(void *context, const sl_trace *piece)
{
    uint32_t *crc = (uint32_t *)context;
    uint32_t p;
    for (p = 0; p < piece->pixels; p++)
        *crc = sl_crc32(*crc, piece->values + p * piece->pixel_stride * piece->value_bytes,
                        (size_t)piece->channels * piece->value_bytes);
}

static void *allocate_aligned(size_t bytes)
{
    void *memory;
    if (posix_memalign(&memory, SL_SECTION_ALIGNMENT, bytes == 0 ? 1 : bytes) != 0) exit(3);
    return memory;
}

/* By the stripe plan, of which the memory ends where it says: the same image must come out. */
static void run_planned(const sl_model *model, const uint8_t *in, const uint8_t *expected,
                        uint32_t width, uint32_t height)
{
    const size_t stride = (size_t)width * 3, size = stride * height;
    size_t sram_bytes, dram_bytes;
    uint8_t *out, *sram, *dram;
    uint32_t crc = 0;
    sl_status status;

    if (sl_plan_bytes(model, width, height, &sram_bytes, &dram_bytes) != SL_OK ||
        sram_bytes > ARENA_MAX || dram_bytes > ARENA_MAX)
        return;
    out = (uint8_t *)allocate(size);
    sram = (uint8_t *)allocate_aligned(sram_bytes);
    dram = (uint8_t *)allocate_aligned(dram_bytes);
    status = sl_run_planned(model, in, stride, out, stride, width, height, sram, sram_bytes, dram,
                            dram_bytes, draw(2) == 0 ? read_piece : NULL, &crc);
    met[status]++;
    if (status == SL_OK && memcmp(out, expected, size) != 0) abort();
    free(dram);
    free(sram);
    free(out);
}

static void run_model(const sl_model *model)
{
    const uint32_t width = 1 + (uint32_t)draw(20), height = 1 + (uint32_t)draw(20);
    const size_t stride = (size_t)width * 3, size = stride * height;
    uint8_t *in, *out;
    uint32_t crc = 0;
    size_t need, i;
    sl_status status;
    void *arena;

    if (sl_arena_bytes(model, width, height, &need) != SL_OK || need > ARENA_MAX) return;
    in = (uint8_t *)allocate(size);
    out = (uint8_t *)allocate(size);
    for (i = 0; i < size; i++)
        in[i] = (uint8_t)draw(256);
    arena = allocate_aligned(need);
    status = sl_run(model, in, stride, out, stride, width, height, arena, need, read_piece, &crc);
    met[status]++;
    if (status == SL_OK) run_planned(model, in, out, width, height);
    free(arena);
    free(out);
    free(in);
}

static void test_model(const sl_model *model)
{
    const sl_vectors_record vectors = sl_vectors(model);
    size_t need;
    void *arena;

    if (sl_arena_bytes(model, vectors.width, vectors.height, &need) != SL_OK || need > ARENA_MAX)
        return;
    arena = allocate_aligned(need);
    met[sl_self_test(model, arena, need, NULL)]++;
    free(arena);
}

/* Decompress what sl_open calls compressed, into memory of just the size that it states. */
static void unpack(const uint8_t *data, size_t size)
{
    sl_model model;
    uint8_t *plain;
    sl_status status;
    size_t need;

    if (sl_decompress(data, size, NULL, 0, &need) != SL_OUTPUT_TOO_SMALL || need > ARENA_MAX)
        return;
    plain = (uint8_t *)allocate(need + 1);
    status = sl_decompress(data, size, plain + 1, need, &need);
    met[status]++;
    if (status == SL_OK) met[sl_open(&model, plain + 1, need)]++;
    free(plain);
}

sl_status try_bundle(const uint8_t *data, size_t size)
{
    uint8_t *block = (uint8_t *)allocate(size + 1);
    sl_model model;
    sl_status status;

    memcpy(block + 1, data, size);
    status = sl_open(&model, block + 1, size);
    met[status]++;
    if (status == SL_OK) {
        run_model(&model);
        if (draw(4) == 0) test_model(&model);
    }
    if (status == SL_COMPRESSED) unpack(block + 1, size);
    free(block);
    return status;
}
