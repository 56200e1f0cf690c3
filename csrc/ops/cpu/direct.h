// Direct 3x3 convolution of one row: the three weights of a kernel row stay in registers, each
// input broadcast feeds three multiply-adds.
#pragma once

#include "growth.h"
#include "matmul.h"

namespace starlight::ops::STARLIGHT_ISA
{

// PIXELS outputs, STRIDE inputs apart, from rows that start one pixel left of the first.
template <class P, int PIXELS, int STRIDE, class Finish>
STARLIGHT_INLINE void direct_block(const typename P::L::Real *const rows[3], int64_t block_stride,
                                   int depth, const typename P::L::Real *w, Finish finish)
{
    using L = typename P::L;
    PiecewiseSums<L, PIXELS, P::vectors> piecewise;
    auto &sums = piecewise.sums;
    constexpr int piece = piecewise.longest / (3 * L::n); // blocks
    int left = piece;
#pragma GCC unroll 1
    for (int ky = 0; ky < 3; ky++) {
        const typename L::Real *a = rows[ky];
#pragma GCC unroll 1
        for (int c = 0; c < depth; c += L::n, a += block_stride) {
            if (left-- == 0) {
                piecewise.end_piece();
                left = piece - 1;
            }
            const int steps = std::min(L::n, depth - c);
#pragma GCC unroll 1
            for (int k = 0; k < steps; k += P::depth_step) {
                typename L::V weights[3][P::vectors];
#pragma GCC unroll 3
                for (int kx = 0; kx < 3; kx++) {
#pragma GCC unroll 4
                    for (int v = 0; v < P::vectors; v++)
                        weights[kx][v] = L::load(w + (kx * P::vectors + v) * L::n);
                }
                w += 3 * P::vectors * L::n;
#pragma GCC unroll 32
                for (int j = 0; j < (PIXELS - 1) * STRIDE + 3; j++) {
                    const typename L::V s =
                        P::pair ? L::splat_pair(a + j * L::n + k) : L::splat(a[j * L::n + k]);
#pragma GCC unroll 3
                    for (int kx = 0; kx < 3; kx++) {
                        const int i = (j - kx) / STRIDE;
                        if (j < kx || (j - kx) % STRIDE != 0 || i >= PIXELS) continue;
#pragma GCC unroll 4
                        for (int v = 0; v < P::vectors; v++)
                            sums[i][v] += s * weights[kx][v];
                    }
                }
            }
        }
    }
    piecewise.add_before();
    P::finish_rows(sums, finish);
}

// A broadcast feeds three multiply-adds already: no pairs but for half a vector.
template <class L, class Do> STARLIGHT_INLINE void for_each_direct_panel(int outputs, Do do_panel)
{
    for_each_panel<L, Panel<L, 1, false>>(outputs, do_panel);
}

// weight(output, channel, ky, kx).
template <class L, class Weight>
inline void pack_direct(typename L::Real *w, int depth, int outputs, Weight weight)
{
    for_each_direct_panel<L>(outputs, [&]<class P>(int o) {
        typename L::Real *panel = w + int64_t{9} * o * depth;
        for (int ky = 0; ky < 3; ky++)
            for (int k = 0; k < depth; k++)
                for (int kx = 0; kx < 3; kx++)
                    for (int i = 0; i < P::outputs; i++) {
                        const int64_t step = (int64_t{ky} * depth + k) / P::depth_step;
                        panel[(step * 3 + kx) * P::vectors * L::n + P::lane(i, k)] =
                            weight(o + i, k, ky, kx);
                    }
    });
}

// One row of outputs. `rows` start one pixel left of the first output's centre;
// sink.operator()<Out>(pixel, output, vector).
template <class L, int STRIDE, class Sink>
inline void direct_row(const typename L::Real *const (&rows)[3], int64_t block_stride,
                       const Layer<L> &layer, int64_t pixels, Sink sink)
{
    for_each_direct_panel<L>(layer.outputs, [&]<class P>(int o) {
        for_each_rows<P::rows>(pixels, [&]<int PIXELS>(int64_t first) {
            const int64_t offset = first * STRIDE * L::n;
            const typename L::Real *at[3] = {rows[0] + offset, rows[1] + offset, rows[2] + offset};
            direct_block<P, PIXELS, STRIDE>(
                at, block_stride, layer.depth, layer.weights + int64_t{9} * o * layer.depth,
                [&](int i, int v, typename P::Out::V value) {
                    sink.template operator()<typename P::Out>(first + i, o + v * L::n, value);
                });
        });
    });
}

// Convolutions by single rows. A unit, the grain of rows and columns, is one pixel.
template <class L> struct Direct {
    using Real = typename L::Real;
    static constexpr int unit = 1;
    static constexpr int taps = 9; // of packed weights, for each output and channel

    Direct(Arena &, int64_t, int, int) {}

    template <class Weight> static void pack(Real *w, int depth, int outputs, Weight weight)
    {
        pack_direct<L>(w, depth, outputs, weight);
    }

    // Nothing is prepared per source.
    void read(const GrowthBuffer<L> &, int, int, int64_t, Span) {}

    // make_sink(y) gives the taker of row y: sink.operator()<Out>(x, output, vector).
    template <class MakeSink>
    void convolve(const GrowthBuffer<L> &buffer, const Layer<L> &layer, int64_t y, Span columns,
                  MakeSink make_sink)
    {
        const auto row = [&](int ky) -> const Real * {
            return buffer.cell(buffer.row(y + ky - 1), 0, columns.begin - 1);
        };
        auto sink = make_sink(y);
        direct_row<L, 1>({row(0), row(1), row(2)}, buffer.block_stride(), layer, columns.size(),
                         [&]<class W>(int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                             sink.template operator()<W>(columns.begin + i, output, value);
                         });
    }
};

} // namespace starlight::ops::STARLIGHT_ISA
