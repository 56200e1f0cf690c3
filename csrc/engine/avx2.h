// 16 lanes as two registers of AVX2. `Dot` gives the dot product: AVX-VNNI's, or one that is exact
// without it (vpmaddubsw saturates its 16-bit sums, so it is no choice).
#ifndef STARLIGHT_ENGINE_AVX2_H
#define STARLIGHT_ENGINE_AVX2_H

#include <immintrin.h>

#include "rows.h"
#include "scaled_rows.h"

namespace starlight::engine
{

template <class Dot> struct Avx2 {
    struct Acc {
        __m256i low, high;
    };
    struct Weights {
        typename Dot::Weights low, high;
    };
    using Input = typename Dot::Input;
    using WideWeights = Acc;
    using WideInput = __m256i;
    static constexpr int PIXEL_BYTES = LANES;
    static constexpr int PIXELS[VECTORS_MAX + 1] = {0, Dot::PIXELS, Dot::PIXELS / 2};
    static constexpr bool FUSED = false;
    static constexpr bool PAIRS = false;
    static constexpr bool QUARTETS = false;

    static __m256i at(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }
    static Acc load(const int32_t *from) { return {at(from), at(from + LANES / 2)}; }
    static Acc all(int32_t value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
    static Weights load_weights(const int8_t *from)
    {
        return {Dot::weights(at(from)), Dot::weights(at(from + ENTRY / 2))};
    }
    static Input broadcast(const uint8_t *from)
    {
        int32_t dword;
        __builtin_memcpy(&dword, from, sizeof dword);
        return Dot::input(_mm256_set1_epi32(dword));
    }
    static Acc dot(Acc acc, Input input, Weights weights)
    {
        return {Dot::dot(acc.low, input, weights.low), Dot::dot(acc.high, input, weights.high)};
    }
    static WideWeights load_weights_wide(const int8_t *from)
    {
        return {at(from), at(from + ENTRY / 2)};
    }
    static WideInput broadcast_wide(const uint8_t *from)
    {
        int32_t dword;
        __builtin_memcpy(&dword, from, sizeof dword);
        return _mm256_set1_epi32(dword);
    }
    static Acc dot_wide(Acc acc, WideInput input, WideWeights weights)
    {
        return {Dot::dot_wide(acc.low, input, weights.low),
                Dot::dot_wide(acc.high, input, weights.high)};
    }
    static void keep(int32_t *to, Acc acc)
    {
        _mm256_storeu_si256((__m256i *)to, acc.low);
        _mm256_storeu_si256((__m256i *)(to + LANES / 2), acc.high);
    }
    static Acc add(Acc a, Acc b)
    {
        return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
    }
    static Acc subtract(Acc a, Acc b)
    {
        return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
    }
    static Acc shift_left(Acc a, Acc by)
    {
        return {_mm256_sllv_epi32(a.low, by.low), _mm256_sllv_epi32(a.high, by.high)};
    }
    static Acc shift_right(Acc a, Acc by)
    {
        return {_mm256_srav_epi32(a.low, by.low), _mm256_srav_epi32(a.high, by.high)};
    }
    static Acc at_least(Acc a, int32_t low)
    {
        const __m256i bound = _mm256_set1_epi32(low);
        return {_mm256_max_epi32(a.low, bound), _mm256_max_epi32(a.high, bound)};
    }
    static Acc widen(const uint8_t *from)
    {
        return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from)),
                _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from + LANES / 2)))};
    }
    static void store(uint8_t *to, Acc acc, uint16_t mask)
    {
        // Packing works within 128 bits: the middle two quarters change places.
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(acc.low, acc.high), 0xD8);
        __m128i bytes =
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        bytes = _mm_xor_si128(bytes, _mm_set1_epi8((char)ZERO));
        if (mask != 0xFFFF) {
            const __m128i bit = _mm_set1_epi64x((long long)0x8040201008040201ull);
            const __m128i spread =
                _mm_shuffle_epi8(_mm_set1_epi16((short)mask),
                                 _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
            const __m128i chosen = _mm_cmpeq_epi8(_mm_and_si128(spread, bit), bit);
            bytes = _mm_blendv_epi8(_mm_loadu_si128((const __m128i *)to), bytes, chosen);
        }
        _mm_storeu_si128((__m128i *)to, bytes);
    }
};

} // namespace starlight::engine

#endif
