// Vectors of one instruction set, and how stored elements become lanes and back.
// Every header beside this one is compiled once per instruction set, into namespace STARLIGHT_ISA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace starlight::ops::STARLIGHT_ISA
{

#define STARLIGHT_INLINE [[gnu::always_inline]] inline
#define STARLIGHT_LAMBDA __attribute__((always_inline))

template <class E, int N> struct VectorOf {
    typedef E type __attribute__((vector_size(N * sizeof(E))));
};

// N lanes of R; ACCUMULATORS vectors hold sums, the registers left hold operands.
template <class R, int N, int ACCUMULATORS> struct Lanes {
    using Real = R;
    using Half = Lanes<R, N / 2, ACCUMULATORS>;
    static constexpr int n = N;
    static constexpr int accumulators = ACCUMULATORS;
    static constexpr int panel_vectors = ACCUMULATORS >= 24 ? 2 : 1;
    using V = typename VectorOf<R, N>::type;
    // At any address of an element. Vectors alias their elements alone: unlike memcpy, a store
    // leaves pointers and sizes that the compiler holds in registers where they are.
    typedef R AtElement __attribute__((vector_size(N * sizeof(R)), aligned(alignof(R))));

    STARLIGHT_INLINE static V load(const R *p) { return *reinterpret_cast<const AtElement *>(p); }
    STARLIGHT_INLINE static void store(R *p, V v) { *reinterpret_cast<AtElement *>(p) = v; }
    STARLIGHT_INLINE static V splat(R value) { return value - V{}; }
    // Lanes p[0], p[1], p[0], p[1], ...
    STARLIGHT_INLINE static V splat_pair(const R *p)
    {
        if constexpr (sizeof(R) == 4) {
            using Pairs = typename VectorOf<int64_t, N / 2>::type;
            int64_t pair;
            __builtin_memcpy(&pair, p, sizeof pair);
            return (V)(pair - Pairs{});
        } else {
            V v;
            for (int i = 0; i < N; i++)
                v[i] = p[i % 2];
            return v;
        }
    }
    STARLIGHT_INLINE static auto add_pairs(V v)
    {
        return [&]<int... i>(std::integer_sequence<int, i...>) STARLIGHT_LAMBDA {
            return __builtin_shufflevector(v, v, 2 * i...) +
                   __builtin_shufflevector(v, v, 2 * i + 1 ...);
        }(std::make_integer_sequence<int, N / 2>());
    }
    // Lanes [0, count), the others zero.
    STARLIGHT_INLINE static V first(V v, int count)
    {
        using Bits =
            typename VectorOf<std::conditional_t<sizeof(R) == 4, int32_t, int64_t>, N>::type;
        Bits lanes;
        for (int i = 0; i < N; i++)
            lanes[i] = i;
        return (V)((Bits)v & (lanes < Bits{} + count));
    }
    // add_pairs of both in one vector, each 128 bits of which hold sums of a's and then of b's: no
    // lane crosses from 128 bits to others.
    static constexpr int quarter = 16 / sizeof(R); // lanes of 128 bits
    STARLIGHT_INLINE static V add_pairs(V a, V b)
    {
        return [&]<int... i>(std::integer_sequence<int, i...>) STARLIGHT_LAMBDA {
            constexpr auto from = [](int lane) {
                const int in = lane % quarter, first = lane - in;
                return 2 * in < quarter ? first + 2 * in : N + first + 2 * in - quarter;
            };
            return __builtin_shufflevector(a, b, from(i)...) +
                   __builtin_shufflevector(a, b, (from(i) + 1)...);
        }(std::make_integer_sequence<int, N>());
    }
    // add_pairs of each, in fewer steps than one by one.
    STARLIGHT_INLINE static auto add_pairs_apart(V a, V b)
    {
        return [&]<int... i>(std::integer_sequence<int, i...>) STARLIGHT_LAMBDA {
            const V both = __builtin_shufflevector(a, b, 2 * i..., N + 2 * i...) +
                           __builtin_shufflevector(a, b, 2 * i + 1 ..., N + 2 * i + 1 ...);
            return std::pair{__builtin_shufflevector(both, both, i...),
                             __builtin_shufflevector(both, both, N / 2 + i...)};
        }(std::make_integer_sequence<int, N / 2>());
    }
    STARLIGHT_INLINE static V relu(V v) { return v > 0 ? v : V{}; }
};

struct Bf16 {
    uint16_t bits;
};

// Lanes from memory of another element type; `count` below n leaves zeros.
template <class L> STARLIGHT_INLINE typename L::V load_as(const typename L::Real *p, int count)
{
    if (count >= L::n) return L::load(p);
    typename L::V v{};
    for (int i = 0; i < count; i++)
        v[i] = p[i];
    return v;
}

template <class L> STARLIGHT_INLINE typename L::V load_as(const Bf16 *p, int count)
{
    using Bits16 = typename VectorOf<uint16_t, L::n>::type;
    using Bits32 = typename VectorOf<uint32_t, L::n>::type;
    Bits16 bits{};
    if (count >= L::n) {
        __builtin_memcpy(&bits, p, sizeof bits);
    } else {
        for (int i = 0; i < count; i++)
            bits[i] = p[i].bits;
    }
    return (typename L::V)(__builtin_convertvector(bits, Bits32) << 16);
}

template <class L> STARLIGHT_INLINE void store_as(typename L::Real *p, typename L::V v, int count)
{
    if (count >= L::n) return L::store(p, v);
    for (int i = 0; i < count; i++)
        p[i] = v[i];
}

// To nearest, ties to even; NaN stays NaN.
template <class L> STARLIGHT_INLINE void store_as(Bf16 *p, typename L::V v, int count)
{
    using Bits16 = typename VectorOf<uint16_t, L::n>::type;
    using Bits32 = typename VectorOf<uint32_t, L::n>::type;
    const Bits32 bits = (Bits32)v;
    const Bits32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Bits32 is_nan = (Bits32)((bits & 0x7fffffff) > 0x7f800000);
    const Bits16 narrow =
        __builtin_convertvector((rounded & ~is_nan) | (((bits >> 16) | 0x40) & is_nan), Bits16);
    if (count >= L::n) {
        __builtin_memcpy(p, &narrow, sizeof narrow);
    } else {
        for (int i = 0; i < count; i++)
            p[i].bits = narrow[i];
    }
}

} // namespace starlight::ops::STARLIGHT_ISA
