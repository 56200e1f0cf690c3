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
    // n words of the values at [lane][value].
    STARLIGHT_INLINE static Words narrow(const typename L::Real (&values)[1][L::n])
    {
        return L::load(values[0]);
    }
    // Items are single pixels.
    static void pair_pixels(Word *, int64_t) {}
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
    STARLIGHT_INLINE static Words narrow(const float (&values)[2][16])
    {
        const Words low = rounded(values[0]), high = rounded(values[1]);
        return low | high << 16;
    }
    // Rows of 32 channels, 16 words each: rows 2i, 2i + 1 become 32 words (2i, 2i + 1).
    static void pair_pixels(Word *rows, int64_t count)
    {
        for (int64_t i = 0; i < count; i += 2, rows += 32) {
            const Words first = load(rows), second = load(rows + 16);
            const Words even = (first & 0xffff) | second << 16;
            const Words odd = first >> 16 | (second & 0xffff0000);
            store(rows, even);
            store(rows + 16, odd);
        }
    }

private:
    STARLIGHT_INLINE static __mmask16 mask16(int count)
    {
        return __mmask16(count >= 16 ? 0xffff : (1u << count) - 1);
    }
    STARLIGHT_INLINE static Words rounded(const float *p)
    {
        const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_loadu_ps(p));
        return (Words)_mm512_cvtepu16_epi32((__m256i)narrow);
    }
};
#endif

} // namespace starlight::ops::STARLIGHT_ISA
