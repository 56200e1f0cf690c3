/* The float32 limit of one core: independent chains of fused multiply-adds in registers, more of
 * them than latency times ports, on the widest vectors that the compiler's target has. */
#include <stdint.h>

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

enum { CHAINS = 12 };

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

/* Runs the chains and returns the floating-point operations done; *sink keeps the sums alive. */
int64_t fma_chains(int64_t rounds, float *sink)
{
    vector sums[CHAINS];
    for (int c = 0; c < CHAINS; c++)
        for (int lane = 0; lane < VECTOR_BYTES / 4; lane++)
            sums[c][lane] = (float)(c + lane);
    const vector scale = sums[0] * 0.0f + 0.5f;
    const vector offset = sums[0] * 0.0f + 1.0f;
    for (int64_t round = 0; round < rounds; round++)
        for (int c = 0; c < CHAINS; c++)
            sums[c] = sums[c] * scale + offset;
    vector total = sums[0];
    for (int c = 1; c < CHAINS; c++)
        total += sums[c];
    *sink = total[0];
    return rounds * CHAINS * (VECTOR_BYTES / 4) * 2;
}
