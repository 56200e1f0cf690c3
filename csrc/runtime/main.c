/* The least firmware: a linked bundle, a static arena, the self-test. No allocation, no stdio.
 * Give SL_ARENA_BYTES what sl_arena_bytes asks for the largest frame of the product. */
#include "starlight_runtime.h"

#ifndef SL_ARENA_BYTES
#define SL_ARENA_BYTES (1u << 20)
#endif

/* From bundle.S, or any other way to link the file's bytes. */
extern const uint8_t starlight_bundle[];
extern const size_t starlight_bundle_bytes;

static uint8_t memory[SL_ARENA_BYTES + SL_SECTION_ALIGNMENT];

/* 0 when the model opens and reproduces its test vectors, else the sl_status. */
int main(void)
{
    const size_t past = (uintptr_t)memory % SL_SECTION_ALIGNMENT;
    uint8_t *arena = memory + (SL_SECTION_ALIGNMENT - past);
    sl_model model;
    sl_status status = sl_open(&model, starlight_bundle, starlight_bundle_bytes);

    if (status == SL_OK) status = sl_self_test(&model, arena, SL_ARENA_BYTES, NULL);
    return (int)status;
}
