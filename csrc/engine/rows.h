// The row kernel, written once for every instruction set.
//
// A set `V` gives Acc (16 int32), Weights (a vector of 16 dwords), Input (a dword for all lanes),
// and
//     load(int32 *), load_weights(int8 *), broadcast(byte *), dot(acc, input, weights)
//     the last three again as ..._wide, with WideWeights and WideInput, for dwords of two int16
//     keep(int32 *, acc)
//     add, subtract, shift_left, shift_right (floor), at_least(acc, int32), widen(byte *)
//     store(byte *, acc, mask): the lanes of mask, saturated to -128..127, plus 128
// with QUARTETS also store_quartet(byte *, four acc, low), four pixels side by side;
// and PIXELS[vectors]: how many pixels fit its registers at once; FUSED: whether the three weights
// of a window's row fit too, so that one broadcast feeds three dot products.
#ifndef STARLIGHT_ENGINE_ROWS_H
#define STARLIGHT_ENGINE_ROWS_H

#include "kernels.h"

// A set whose lanes are no registers may define it as nothing.
#ifndef SL_UNROLL
#define SL_UNROLL _Pragma("GCC unroll 64")
#endif

namespace starlight::engine
{

// The set for inputs of 16 bits.
template <class V> struct Wide : V {
    using Weights = typename V::WideWeights;
    using Input = typename V::WideInput;
    static constexpr int PIXEL_BYTES = 2 * LANES;
    static Weights load_weights(const int8_t *from) { return V::load_weights_wide(from); }
    static Input broadcast(const uint8_t *from) { return V::broadcast_wide(from); }
    template <class W>
    static typename V::Acc dot(const typename V::Acc &acc, const Input &input, const W &weights)
    {
        return V::dot_wide(acc, input, weights);
    }
};

// The end of one pixel's sums, as far as 32 bits take it.
template <class V>
inline __attribute__((always_inline)) typename V::Acc scaled(const Row &row, int vector,
                                                             ptrdiff_t at, typename V::Acc acc)
{
    const Lanes &lanes = row.lanes[vector];
    if (row.epilogue == Epilogue::tail) {
        const typename V::Acc residual = V::shift_right(acc, V::load(lanes.shift));
        const typename V::Acc pixel = V::widen(row.join[vector] + at);
        return V::subtract(V::subtract(pixel, residual), V::all(ZERO));
    }
    if (row.join[vector] != nullptr)
        acc =
            V::add(acc, V::shift_left(V::widen(row.join[vector] + at), V::load(lanes.join_shift)));
    return V::shift_right(acc, V::load(lanes.shift));
}

template <class V, int P, int N>
inline __attribute__((always_inline)) void finish(const Row &row, int x,
                                                  typename V::Acc (&acc)[P][N])
{
    SL_UNROLL
    for (int n = 0; n < N; n++) {
        const uint16_t mask = row.lanes[n].mask;
        if constexpr (V::QUARTETS && P % 4 == 0) {
            if (mask == 0xFFFF && row.step == LANES) { // four pixels lie side by side
                SL_UNROLL
                for (int p = 0; p < P; p += 4) {
                    const ptrdiff_t at = ptrdiff_t{x + p} * LANES;
                    V::store_quartet(row.out[n] + at, scaled<V>(row, n, at, acc[p][n]),
                                     scaled<V>(row, n, at + LANES, acc[p + 1][n]),
                                     scaled<V>(row, n, at + 2 * LANES, acc[p + 2][n]),
                                     scaled<V>(row, n, at + 3 * LANES, acc[p + 3][n]), row.low);
                }
                continue;
            }
        }
        SL_UNROLL
        for (int p = 0; p < P; p++) {
            const ptrdiff_t at = ptrdiff_t{x + p} * row.step;
            V::store(row.out[n] + at, V::at_least(scaled<V>(row, n, at, acc[p][n]), row.low), mask);
        }
    }
}

// P outputs from pixel x on.
template <class V, int N, int P, int TAPS, int STRIDE> void block(const Row &row, int x)
{
    typename V::Acc acc[P][N];
    SL_UNROLL
    for (int p = 0; p < P; p++)
        SL_UNROLL
    for (int n = 0; n < N; n++)
        acc[p][n] = V::load(row.lanes[n].bias);
    const int8_t *weights = row.weights;
    const ptrdiff_t at = ptrdiff_t{x} * STRIDE * V::PIXEL_BYTES;
#pragma GCC unroll 1
    for (int entry = 0; entry < row.entries; entry++, weights += TAPS * N * ENTRY) {
        const uint8_t *in = row.in[entry] + at;
        if constexpr (V::FUSED && TAPS > 1) {
            // Two vectors leave no register to spare: the last column's weights stay in memory.
            constexpr int HELD = N == 1 ? TAPS : TAPS - 1;
            typename V::Weights w[HELD][N];
            SL_UNROLL
            for (int tap = 0; tap < HELD; tap++)
                SL_UNROLL
            for (int n = 0; n < N; n++)
                w[tap][n] = V::load_weights(weights + (tap * N + n) * ENTRY);
            SL_UNROLL
            for (int column = 0; column < (P - 1) * STRIDE + TAPS; column++) {
                const typename V::Input input = V::broadcast(in + column * V::PIXEL_BYTES);
                SL_UNROLL
                for (int tap = 0; tap < TAPS; tap++) {
                    const int p = column - tap;
                    if (p < 0 || p % STRIDE != 0 || p / STRIDE >= P) continue;
                    SL_UNROLL
                    for (int n = 0; n < N; n++)
                        if (tap < HELD)
                            acc[p / STRIDE][n] = V::dot(acc[p / STRIDE][n], input, w[tap][n]);
                        else
                            acc[p / STRIDE][n] =
                                V::dot(acc[p / STRIDE][n], input, weights + (tap * N + n) * ENTRY);
                }
            }
        } else {
            SL_UNROLL
            for (int tap = 0; tap < TAPS; tap++) {
                typename V::Weights w[N];
                SL_UNROLL
                for (int n = 0; n < N; n++)
                    w[n] = V::load_weights(weights + (tap * N + n) * ENTRY);
                SL_UNROLL
                for (int p = 0; p < P; p++) {
                    const typename V::Input input =
                        V::broadcast(in + (p * STRIDE + tap) * V::PIXEL_BYTES);
                    SL_UNROLL
                    for (int n = 0; n < N; n++)
                        acc[p][n] = V::dot(acc[p][n], input, w[n]);
                }
            }
        }
    }
    if (row.sums != nullptr) {
        int32_t *to = row.sums + ptrdiff_t{x} * N * LANES;
        SL_UNROLL
        for (int p = 0; p < P; p++)
            SL_UNROLL
        for (int n = 0; n < N; n++)
            V::keep(to + (p * N + n) * LANES, acc[p][n]);
        return;
    }
    finish<V>(row, x, acc);
}

// Whole blocks of pixels, then the smallest that holds the rest.
template <class V, int N, int TAPS, int STRIDE> void whole_row(const Row &row)
{
    constexpr int P = V::PIXELS[N];
    constexpr int SMALL = P >= 24 ? 8 : P >= 8 ? 4 : 2;
    int x = 0;
    for (; row.pixels - x > P - SMALL; x += P)
        block<V, N, P, TAPS, STRIDE>(row, x);
    if constexpr (P > 2 * SMALL)
        for (; row.pixels - x > SMALL; x += 2 * SMALL)
            block<V, N, 2 * SMALL, TAPS, STRIDE>(row, x);
    for (; x < row.pixels; x += SMALL)
        block<V, N, SMALL, TAPS, STRIDE>(row, x);
}

template <class V, int N> void any_window(const Row &row)
{
    if (row.taps == 1)
        whole_row<V, N, 1, 1>(row);
    else if (row.stride == 1)
        whole_row<V, N, 3, 1>(row);
    else
        whole_row<V, N, 3, 2>(row);
}

template <class V> void any_vectors(const Row &row)
{
    if (row.vectors == 2)
        any_window<V, 2>(row);
    else
        any_window<V, 1>(row);
}

template <class V> void any_row(const Row &row)
{
    if constexpr (V::PAIRS) {
        if (row.pairs) {
            V::pair_row(row);
            return;
        }
    }
    if (row.wide)
        any_vectors<Wide<V>>(row);
    else
        any_vectors<V>(row);
}

} // namespace starlight::engine

#endif
