/* The int8 limit of one core: independent chains of four-byte dot products in registers, on the
 * widest vectors that the compiler's target has. Assembly, so that each is one instruction. */
#include <stdint.h>

#if defined(__AVX512VNNI__)
enum { VECTOR_BYTES = 64 };
#define DOT(sum, x) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x))
#elif defined(__AVXVNNI__)
enum { VECTOR_BYTES = 32 };
#define DOT(sum, x) __asm__ volatile("{vex} vpdpbusd %1, %1, %0" : "+x"(sum) : "x"(x))
#elif defined(__ARM_FEATURE_DOTPROD)
enum { VECTOR_BYTES = 16 };
#define DOT(sum, x) __asm__ volatile("sdot %0.4s, %1.16b, %1.16b" : "+w"(sum) : "w"(x))
#endif

#ifdef DOT
typedef int32_t vector __attribute__((vector_size(VECTOR_BYTES)));
#endif

/* Runs the chains and returns the operations done, two for each product and its addition; 0 where
 * the target has no dot product. *sink keeps the sums alive. */
int64_t dot_chains(int64_t rounds, float *sink)
{
#ifdef DOT
    vector a = {1}, b = {2}, c = {3}, d = {4}, e = {5}, f = {6}, g = {7}, h = {8}, i = {9};
    vector j = {10}, k = {11}, l = {12};
    const vector x = {0x01020304};
    for (int64_t round = 0; round < rounds; round++) {
        DOT(a, x);
        DOT(b, x);
        DOT(c, x);
        DOT(d, x);
        DOT(e, x);
        DOT(f, x);
        DOT(g, x);
        DOT(h, x);
        DOT(i, x);
        DOT(j, x);
        DOT(k, x);
        DOT(l, x);
    }
    a += b + c + d + e + f + g + h + i + j + k + l;
    *sink = (float)a[0];
    return rounds * 12 * VECTOR_BYTES * 2;
#else
    *sink = 0;
    return 0 * rounds;
#endif
}
