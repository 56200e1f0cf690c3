// The row kernel, written once for every instruction set.
//
// A set `V` gives Acc (16 int32), Weights (a vector of 16 dwords), Input (a dword for all lanes),
// and
//     load(int32 *), load_weights(int8 *), broadcast(byte *), dot(acc, input, weights)
//     add, subtract, shift_left, shift_right (floor), at_least(acc, int32), widen(byte *)
//     store(byte *, acc, mask): the lanes of mask, saturated to -128..127, plus 128
// and PIXELS[vectors]: how many pixels fit its registers at once; FUSED: whether the three weights
// of a window's row fit too, so that one broadcast feeds three dot products.
#ifndef STARLIGHT_ENGINE_ROWS_H
#define STARLIGHT_ENGINE_ROWS_H

#include "kernels.h"

#define SL_UNROLL _Pragma("GCC unroll 64")

namespace starlight::engine
{

template <class V>
inline __attribute__((always_inline)) void finish(const Row &row, int vector, int x,
                                                  typename V::Acc acc)
{
    const Lanes &lanes = row.lanes[vector];
    const ptrdiff_t at = ptrdiff_t{x} * row.step;
    if (row.epilogue == Epilogue::tail) {
        const typename V::Acc residual = V::shift_right(acc, V::load(lanes.shift));
        const typename V::Acc pixel = V::widen(row.join[vector] + at);
        acc = V::subtract(V::subtract(pixel, residual), V::all(ZERO));
    } else {
        if (row.join[vector] != nullptr)
            acc = V::add(acc,
                         V::shift_left(V::widen(row.join[vector] + at), V::load(lanes.join_shift)));
        acc = V::at_least(V::shift_right(acc, V::load(lanes.shift)), row.low);
    }
    V::store(row.out[vector] + at, acc, lanes.mask);
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
    const ptrdiff_t at = ptrdiff_t{x} * STRIDE * LANES;
#pragma GCC unroll 1
    for (int entry = 0; entry < row.entries; entry++, weights += TAPS * N * ENTRY) {
        const uint8_t *in = row.in[entry] + at;
        if constexpr (V::FUSED && TAPS > 1) {
            typename V::Weights w[TAPS][N];
            SL_UNROLL
            for (int tap = 0; tap < TAPS; tap++)
                SL_UNROLL
            for (int n = 0; n < N; n++)
                w[tap][n] = V::load_weights(weights + (tap * N + n) * ENTRY);
            SL_UNROLL
            for (int column = 0; column < (P - 1) * STRIDE + TAPS; column++) {
                const typename V::Input input = V::broadcast(in + column * LANES);
                SL_UNROLL
                for (int tap = 0; tap < TAPS; tap++) {
                    const int p = column - tap;
                    if (p < 0 || p % STRIDE != 0 || p / STRIDE >= P) continue;
                    SL_UNROLL
                    for (int n = 0; n < N; n++)
                        acc[p / STRIDE][n] = V::dot(acc[p / STRIDE][n], input, w[tap][n]);
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
                    const typename V::Input input = V::broadcast(in + (p * STRIDE + tap) * LANES);
                    SL_UNROLL
                    for (int n = 0; n < N; n++)
                        acc[p][n] = V::dot(acc[p][n], input, w[n]);
                }
            }
        }
    }
    SL_UNROLL
    for (int p = 0; p < P; p++)
        SL_UNROLL
    for (int n = 0; n < N; n++)
        finish<V>(row, n, x + p, acc[p][n]);
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

template <class V> void any_row(const Row &row)
{
    if constexpr (V::PAIRS) {
        if (row.pairs) {
            V::pair_row(row);
            return;
        }
    }
    if (row.vectors == 2)
        any_window<V, 2>(row);
    else
        any_window<V, 1>(row);
}

} // namespace starlight::engine

#endif
