// AVX-512 with VNNI: 24 accumulators, the weights of a window's row and one broadcast fill the
// registers. The dot product is assembly, because GCC 12 copies accumulators around its intrinsic.
#include <immintrin.h>

#include "isa.h"
#include "rows.h"

namespace starlight::engine
{
namespace
{

struct Avx512 {
    using Acc = __m512i;
    using Weights = __m512i;
    using Input = __m512i;
    static constexpr int PIXELS[VECTORS_MAX + 1] = {0, 24, 12};
    static constexpr bool FUSED = true;
    static constexpr bool PAIRS = true;

    static Acc load(const int32_t *from) { return _mm512_loadu_si512(from); }
    static Acc all(int32_t value) { return _mm512_set1_epi32(value); }
    static Weights load_weights(const int8_t *from) { return _mm512_loadu_si512(from); }
    static Input broadcast(const uint8_t *from)
    {
        __m512i all;
        asm volatile("vpbroadcastd %1, %0" : "=v"(all) : "m"(*(const uint32_t *)from));
        return all;
    }
    static Input broadcast_pair(const uint8_t *from)
    {
        __m512i all;
        asm volatile("vpbroadcastq %1, %0" : "=v"(all) : "m"(*(const uint64_t *)from));
        return all;
    }
    static Acc dot(Acc acc, Input input, Weights weights)
    {
        asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(input), "v"(weights));
        return acc;
    }
    static Acc add(Acc a, Acc b) { return _mm512_add_epi32(a, b); }
    static Acc subtract(Acc a, Acc b) { return _mm512_sub_epi32(a, b); }
    static Acc shift_left(Acc a, Acc by) { return _mm512_sllv_epi32(a, by); }
    static Acc shift_right(Acc a, Acc by) { return _mm512_srav_epi32(a, by); }
    static Acc at_least(Acc a, int32_t low) { return _mm512_max_epi32(a, all(low)); }
    static Acc widen(const uint8_t *from)
    {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
    }
    static __m128i narrow(Acc acc)
    {
        return _mm_xor_si128(_mm512_cvtsepi32_epi8(acc), _mm_set1_epi8((char)ZERO));
    }
    static void store(uint8_t *to, Acc acc, uint16_t mask)
    {
        __m128i bytes = narrow(acc);
        if (mask != 0xFFFF) // a masked store would wait for the page's attributes
            bytes = _mm_mask_mov_epi8(_mm_loadu_si128((const __m128i *)to), mask, bytes);
        _mm_storeu_si128((__m128i *)to, bytes);
    }

    // Two pixels of eight outputs: their lane pairs added, interleaved, ended as one vector.
    static void finish_pair(const Row &row, int x, Acc first, Acc second)
    {
        const Lanes &lanes = row.lanes[0];
        const auto swapped = [](Acc a) { return _mm512_shuffle_epi32(a, _MM_PERM_CDAB); };
        const Acc sums = _mm512_mask_blend_epi32(0xAAAA, add(first, swapped(first)),
                                                 add(second, swapped(second)));
        const Acc ended = at_least(shift_right(sums, load(lanes.shift)), row.low);
        const __m128i apart = _mm_shuffle_epi8(
            narrow(ended), _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
        uint8_t *to = row.out[0] + ptrdiff_t{x} * LANES;
        _mm_storel_epi64((__m128i *)to, apart);
        _mm_storeh_pd((double *)(to + LANES), _mm_castsi128_pd(apart));
    }

    template <int P> static void pair_block(const Row &row, int x)
    {
        constexpr int TAPS = 3;
        Acc acc[P];
        SL_UNROLL
        for (int p = 0; p < P; p++)
            acc[p] = load(row.lanes[0].bias);
        const int8_t *weights = row.weights;
#pragma GCC unroll 1
        for (int entry = 0; entry < row.entries; entry++, weights += TAPS * ENTRY) {
            const uint8_t *in = row.in[entry] + ptrdiff_t{x} * LANES;
            Weights w[TAPS];
            SL_UNROLL
            for (int tap = 0; tap < TAPS; tap++)
                w[tap] = load_weights(weights + tap * ENTRY);
            SL_UNROLL
            for (int column = 0; column < P + TAPS - 1; column++) {
                const Input input = broadcast_pair(in + column * LANES);
                SL_UNROLL
                for (int tap = 0; tap < TAPS; tap++)
                    if (column - tap >= 0 && column - tap < P)
                        acc[column - tap] = dot(acc[column - tap], input, w[tap]);
            }
        }
        SL_UNROLL
        for (int p = 0; p < P; p += 2)
            finish_pair(row, x + p, acc[p], acc[p + 1]);
    }

    static void pair_row(const Row &row)
    {
        int x = 0;
        for (; row.pixels - x > 16; x += 24)
            pair_block<24>(row, x);
        for (; x < row.pixels; x += 8)
            pair_block<8>(row, x);
    }
};

} // namespace

const Kernels avx512_vnni_kernels = {"avx512_vnni", ZERO, Avx512::PAIRS, any_row<Avx512>};

} // namespace starlight::engine
