// AVX-512 with VNNI: 24 accumulators, the weights of a window's row and one broadcast fill the
// registers. The dot product is assembly, because GCC 12 copies accumulators around its intrinsic.
#include <immintrin.h>

#include "isa.h"
#include "rows.h"
#include "scaled_rows.h"

namespace starlight::engine
{
namespace
{

struct Avx512 {
    using Acc = __m512i;
    using Weights = __m512i;
    using Input = __m512i;
    using WideWeights = __m512i;
    using WideInput = __m512i;
    static constexpr int PIXEL_BYTES = LANES;
    static constexpr int PIXELS[VECTORS_MAX + 1] = {0, 24, 12};
    static constexpr bool FUSED = true;
    static constexpr bool PAIRS = true;
    static constexpr bool QUARTETS = true;

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
    static Acc dot(Acc acc, Input input, const int8_t *weights)
    {
        asm volatile("vpdpbusd %2, %1, %0"
                     : "+v"(acc)
                     : "v"(input), "m"(*(const int8_t (*)[ENTRY])weights));
        return acc;
    }
    static WideWeights load_weights_wide(const int8_t *from) { return load_weights(from); }
    static WideInput broadcast_wide(const uint8_t *from) { return broadcast(from); }
    static Acc dot_wide(Acc acc, WideInput input, WideWeights weights)
    {
        asm volatile("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(input), "v"(weights));
        return acc;
    }
    static Acc dot_wide(Acc acc, WideInput input, const int8_t *weights)
    {
        asm volatile("vpdpwssd %2, %1, %0"
                     : "+v"(acc)
                     : "v"(input), "m"(*(const int8_t (*)[ENTRY])weights));
        return acc;
    }
    static void keep(int32_t *to, Acc acc) { _mm512_storeu_si512(to, acc); }
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

    // Four vectors to bytes. Packing works within 128 bits: quarter i of the result holds dword i
    // of a, b, c and d.
    static __m512i pack(Acc a, Acc b, Acc c, Acc d, int32_t low)
    {
        const __m512i bytes =
            _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        return _mm512_xor_si512(_mm512_max_epi8(bytes, _mm512_set1_epi8((char)low)),
                                _mm512_set1_epi8((char)ZERO));
    }
    static void store_quartet(uint8_t *to, Acc a, Acc b, Acc c, Acc d, int32_t low)
    {
        const __m512i by_pixel =
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_storeu_si512(to, _mm512_permutexvar_epi32(by_pixel, pack(a, b, c, d, low)));
    }

    // Two pixels of eight outputs: lane 2o of a sum is the first's output o, lane 2o + 1 the
    // second's.
    static Acc add_pairs(Acc first, Acc second, Acc shift)
    {
        const Acc even = _mm512_mask_shuffle_epi32(first, 0xAAAA, second, _MM_PERM_CDAB);
        const Acc odd = _mm512_mask_shuffle_epi32(second, 0x5555, first, _MM_PERM_CDAB);
        return shift_right(add(even, odd), shift);
    }

    // Eight pixels of eight outputs.
    static void finish_pairs(const Row &row, int x, const Acc *acc)
    {
        const Acc shift = load(row.lanes[0].shift);
        const __m512i bytes =
            pack(add_pairs(acc[0], acc[1], shift), add_pairs(acc[2], acc[3], shift),
                 add_pairs(acc[4], acc[5], shift), add_pairs(acc[6], acc[7], shift), row.low);
        // Quarter i has outputs 2i and 2i + 1 as [pixel pair][output][pixel]: to [pixel][output],
        // then word i of a pixel from quarter i.
        const __m512i words =
            _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(_mm_setr_epi8(
                                           0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15)));
        alignas(64) static const uint16_t BY_PIXEL[32] = {
            0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
            4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31};
        const __m512i pixels = _mm512_permutexvar_epi16(_mm512_load_si512(BY_PIXEL), words);
        uint8_t *to = row.out[0] + ptrdiff_t{x} * LANES;
        store_two(to, _mm512_castsi512_si128(pixels));
        store_two(to + 2 * LANES, _mm512_extracti32x4_epi32(pixels, 1));
        store_two(to + 4 * LANES, _mm512_extracti32x4_epi32(pixels, 2));
        store_two(to + 6 * LANES, _mm512_extracti32x4_epi32(pixels, 3));
    }
    static void store_two(uint8_t *to, __m128i pixels)
    {
        _mm_storel_epi64((__m128i *)to, pixels);
        _mm_storeh_pd((double *)(to + LANES), _mm_castsi128_pd(pixels));
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
        for (int p = 0; p < P; p += 8)
            finish_pairs(row, x + p, acc + p);
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

const Kernels avx512_vnni_kernels = {"avx512_vnni", ZERO, Avx512::PAIRS, any_row<Avx512>,
                                     scaled_row<Avx512>};

} // namespace starlight::engine
