// What the layered products multiply: a vector of words against one word. A word is one value in
// the type of the sums, or two bfloat16 whose products one instruction adds.
#pragma once

#include "vector.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace starlight::ops::STARLIGHT_ISA
{

// Elements T in memory, widened when they are gathered.
template <class T_, class L_> struct Widened {
    using T = T_;
    using L = L_;
    using Word = typename L::Real;
    using Words = typename L::V;
    static constexpr int values = 1; // of a word

    STARLIGHT_INLINE static Words read(const T *p, int count) { return load_as<L>(p, count); }
    STARLIGHT_INLINE static typename L::V widen(const T *p, int count)
    {
        return load_as<L>(p, count);
    }
    STARLIGHT_INLINE static void write(T *p, typename L::V v, int count)
    {
        store_as<L>(p, v, count);
    }
    STARLIGHT_INLINE static Words load(const Word *p) { return L::load(p); }
    STARLIGHT_INLINE static void store(Word *p, Words w) { L::store(p, w); }
    STARLIGHT_INLINE static Words splat(const Word *p) { return L::splat(*p); }
    STARLIGHT_INLINE static typename L::V multiply_add(typename L::V sum, Words a, Words b)
    {
        return sum + a * b;
    }
    // n words of the values.
    STARLIGHT_INLINE static Words narrow(const typename L::V (&values)[1]) { return values[0]; }
    // `count` elements, `stride` apart.
    STARLIGHT_INLINE static typename L::V spread(const Word *p, int64_t stride, int count)
    {
        typename L::V v{};
        for (int i = 0; i < count; i++)
            v[i] = p[i * stride];
        return v;
    }
};

#ifdef __AVX512BF16__
// bfloat16 in pairs of channels, or of pixels where the sum runs over pixels.
struct Dots {
    using T = Bf16;
    using L = Lanes<float, 16, 24>;
    using Word = uint32_t;
    using Words = typename VectorOf<uint32_t, 16>::type;
    static constexpr int values = 2;

    STARLIGHT_INLINE static Words read(const T *p, int count)
    {
        return (Words)_mm512_maskz_loadu_epi16(count >= 32 ? ~0u : (1u << count) - 1, p);
    }
    STARLIGHT_INLINE static typename L::V widen(const T *p, int count)
    {
        const __m256i bits = _mm256_maskz_loadu_epi16(mask16(count), p);
        return (typename L::V)((Words)_mm512_cvtepu16_epi32(bits) << 16);
    }
    STARLIGHT_INLINE static void write(T *p, typename L::V v, int count)
    {
        _mm256_mask_storeu_epi16(p, mask16(count), (__m256i)_mm512_cvtneps_pbh((__m512)v));
    }
    STARLIGHT_INLINE static Words load(const Word *p)
    {
        Words words;
        __builtin_memcpy(&words, p, sizeof words);
        return words;
    }
    STARLIGHT_INLINE static void store(Word *p, Words w) { __builtin_memcpy(p, &w, sizeof w); }
    STARLIGHT_INLINE static Words splat(const Word *p) { return *p - Words{}; }
    STARLIGHT_INLINE static typename L::V multiply_add(typename L::V sum, Words a, Words b)
    {
        return (typename L::V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
    }
    STARLIGHT_INLINE static Words narrow(const typename L::V (&values)[2])
    {
        return rounded(values[0]) | rounded(values[1]) << 16;
    }
    STARLIGHT_INLINE static typename L::V spread(const float *p, int64_t stride, int count)
    {
        const Words lanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        return (typename L::V)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask16(count),
                                                       (__m512i)(lanes * uint32_t(stride)), p, 4);
    }
    // 32 channels of two pixels become 32 words, a channel of both each.
    STARLIGHT_INLINE static void store_pair(Word *to, Words first, Words second)
    {
        using Halves = typename VectorOf<uint16_t, 32>::type;
        const Halves a = (Halves)first, b = (Halves)second;
        const auto channels_from = [&]<int... i>(std::integer_sequence<int, i...>,
                                                 auto start) STARLIGHT_LAMBDA {
            constexpr int c = decltype(start)::value;
            return (Words)__builtin_shufflevector(a, b, (i % 2 * 32 + c + i / 2)...);
        };
        constexpr std::make_integer_sequence<int, 32> lanes;
        store(to, channels_from(lanes, std::integral_constant<int, 0>()));
        store(to + 16, channels_from(lanes, std::integral_constant<int, 16>()));
    }

private:
    STARLIGHT_INLINE static __mmask16 mask16(int count)
    {
        return __mmask16(count >= 16 ? 0xffff : (1u << count) - 1);
    }
    STARLIGHT_INLINE static Words rounded(typename L::V values)
    {
        const __m256bh narrow = _mm512_cvtneps_pbh((__m512)values);
        return (Words)_mm512_cvtepu16_epi32((__m256i)narrow);
    }
};
#endif

} // namespace starlight::ops::STARLIGHT_ISA
