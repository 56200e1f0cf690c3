/* A bundle on the engine of npu_model.h through its driver.
 *
 *     npu_trial BUNDLE LATENCY PATIENCE KNOWN_OPS HANGS_AT
 *
 * Runs the self-test, then the vectors' frame to an image. Prints the status of both, whether the
 * image is the vectors', layers done and declined, layers started, misuse of registers, and the
 * offsets of registers that were written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npu_driver.h"
#include "npu_model.h"

#define BUNDLE_MAX (1u << 20)

static uint8_t bundle[BUNDLE_MAX];

int main(int argc, char **argv)
{
    FILE *file = argc == 6 ? fopen(argv[1], "rb") : NULL;
    npu_model engine;
    const npu_bus bus = {npu_model_read, npu_model_write, NULL, &engine};
    npu_driver driver;
    sl_hooks hooks;
    sl_model model;
    sl_vectors_record vectors;
    sl_status tested, ran;
    size_t size, need, frame;
    const uint8_t *input;
    uint8_t *output;
    void *arena;
    uint32_t i;

    if (file == NULL) return 1;
    size = fread(bundle, 1, sizeof bundle, file);
    (void)fclose(file);
    npu_model_reset(&engine);
    engine.latency = (uint32_t)strtoul(argv[2], NULL, 0);
    engine.known_ops = (uint32_t)strtoul(argv[4], NULL, 0);
    engine.hangs_at = (uint32_t)strtoul(argv[5], NULL, 0);
    if (npu_open(&driver, &bus, (uint32_t)strtoul(argv[3], NULL, 0)) != 0) return 2;
    if (sl_open(&model, bundle, size) != SL_OK) return 3;
    if (sl_attach(&model, npu_hooks(&driver, &hooks)) != SL_OK) return 4;
    vectors = sl_vectors(&model);
    if (sl_arena_bytes(&model, vectors.width, vectors.height, &need) != SL_OK) return 5;
    if (posix_memalign(&arena, SL_SECTION_ALIGNMENT, need) != 0) return 6;
    frame = (size_t)vectors.width * vectors.height * 3;
    input = model.vectors.data + sizeof vectors + 4 * (size_t)vectors.layer_count;
    output = (uint8_t *)calloc(frame, 1);
    if (output == NULL) return 6;

    memset(arena, 0x5A, need);
    tested = sl_self_test(&model, arena, need, NULL);
    memset(arena, 0xA5, need);
    ran = sl_run(&model, input, (size_t)vectors.width * 3, output, (size_t)vectors.width * 3,
                 vectors.width, vectors.height, arena, need, NULL, NULL);
    (void)printf("%d %d %d %u %u %u %u\n", (int)tested, (int)ran,
                 memcmp(output, input + frame, frame) == 0, (unsigned)driver.done,
                 (unsigned)driver.declined, (unsigned)engine.started, (unsigned)engine.misuse);
    for (i = 0; i < NPU_BYTES / 4; i++)
        if (engine.written[i] != 0) (void)printf("%u ", (unsigned)(4 * i));
    free(output);
    free(arena);
    return 0;
}
