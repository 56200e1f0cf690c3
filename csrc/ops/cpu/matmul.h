// Matrix products on blocked operands: the 1x1 convolutions, the Winograd products and all weight
// gradients.
// Blocked: channels lie in blocks of L::n lanes, [block][item][lane]; an item is a pixel or a tile.
#pragma once

#include "vector.h"

namespace starlight::ops::STARLIGHT_ISA
{

// Outputs are computed in panels of VECTORS vectors. With PAIR, lanes hold pairs of depth, which
// are added at the end: a vector then stands for half as many outputs, and a broadcast of two
// channels feeds as many multiply-adds as there are vectors.
//
//   <2, false>  32 outputs  12 rows x [o0 .. o15] [o16 .. o31]       (of 16 lanes, 24 accumulators)
//   <1, false>  16 outputs  24 rows x [o0 .. o15]
//   <2, true>   16 outputs  12 rows x [o0 o0' o1 o1' o4 ..] [o2 o2' o3 o3' o6 ..]
//   <1, true>    8 outputs  24 rows x [o0 o0' o1 o1' .. o7 o7']
template <class Lanes_, int VECTORS, bool PAIR> struct Panel {
    using L = Lanes_;
    using Out = std::conditional_t<PAIR && VECTORS == 1, typename L::Half, L>;
    static constexpr int vectors = VECTORS;
    static constexpr bool pair = PAIR;
    static constexpr int outputs = PAIR ? VECTORS * L::n / 2 : VECTORS * L::n;
    static constexpr int rows = L::accumulators / VECTORS;
    static constexpr int depth_step = PAIR ? 2 : 1;
    static_assert(!PAIR || VECTORS <= 2);

    // Where the weight of output i, channel k lies among a step's.
    static constexpr int lane(int i, int k)
    {
        if (!PAIR) return i;
        if (VECTORS == 1) return 2 * i + k % 2;
        constexpr int quarter = L::quarter;
        const int in = i % quarter;
        return in / (quarter / 2) * L::n + (i - in) + in % (quarter / 2) * 2 + k % 2;
    }
    // finish(row, vector of outputs, lanes of Out) from the sums of all rows.
    template <int ROWS, class Finish>
    STARLIGHT_INLINE static void finish_rows(const typename L::V (&sums)[ROWS][VECTORS],
                                             Finish finish)
    {
        constexpr int step = PAIR && VECTORS == 1 && ROWS % 2 == 0 ? 2 : 1;
#pragma GCC unroll 32
        for (int i = 0; i < ROWS; i += step) {
            if constexpr (!PAIR) {
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++)
                    finish(i, v, sums[i][v]);
            } else if constexpr (VECTORS == 2) {
                finish(i, 0, L::add_pairs(sums[i][0], sums[i][1]));
            } else if constexpr (step == 2) {
                const auto [first, second] = L::add_pairs_apart(sums[i][0], sums[i + 1][0]);
                finish(i, 0, first);
                finish(i + 1, 0, second);
            } else {
                finish(i, 0, L::add_pairs(sums[i][0]));
            }
        }
    }
};

// Sums in registers. Rounding grows with a sum's length: beyond `longest` products it is added from
// pieces, and what is there already waits in memory.
template <class L, int ROWS, int VECTORS> struct PiecewiseSums {
    static constexpr int longest = 256;
    typename L::V sums[ROWS][VECTORS] = {}, before[ROWS][VECTORS];
    bool in_pieces = false;

    STARLIGHT_INLINE void end_piece()
    {
        add_before();
        in_pieces = true;
#pragma GCC unroll 32
        for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                before[i][v] = sums[i][v];
                sums[i][v] = typename L::V{};
            }
        }
    }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12 does not follow `in_pieces`
    STARLIGHT_INLINE void add_before()
    {
        if (!in_pieces) return;
#pragma GCC unroll 32
        for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sums[i][v] += before[i][v];
        }
    }
#pragma GCC diagnostic pop
};

// do_panel.operator()<Panel>(first output) over `outputs`, a multiple of L::n / 2. SINGLE: the
// panel of one vector of outputs.
template <class L, class SINGLE, class Do>
STARLIGHT_INLINE void for_each_panel(int outputs, Do do_panel)
{
    constexpr int widest = L::panel_vectors * L::n;
    int o = 0;
    for (; o + widest <= outputs; o += widest)
        do_panel.template operator()<Panel<L, L::panel_vectors, false>>(o);
    for (; o + L::n <= outputs; o += L::n)
        do_panel.template operator()<SINGLE>(o);
    if (o < outputs) do_panel.template operator()<Panel<L, 1, true>>(o);
}

// Products run at the rate of loads where every broadcast feeds one multiply-add: pairs feed two.
template <class L, class Do> STARLIGHT_INLINE void for_each_product_panel(int outputs, Do do_panel)
{
    for_each_panel<L, Panel<L, 2, true>>(outputs, do_panel);
}

// do_rows.operator()<ROWS>(first row) over `rows`, with as few different and as large ROWS as fill
// the accumulators.
template <int MAX, class Do> STARLIGHT_INLINE void for_each_rows(int64_t rows, Do do_rows)
{
    constexpr int second = MAX * 2 / 3;
    int64_t i = 0;
    while (rows - i >= MAX + second || rows - i == MAX) {
        do_rows.template operator()<MAX>(i);
        i += MAX;
    }
    for (; rows - i >= second; i += second)
        do_rows.template operator()<second>(i);
    if constexpr (second > 4) {
        for (; rows - i >= second / 2; i += second / 2)
            do_rows.template operator()<second / 2>(i);
    }
    if constexpr (second > 8) {
        for (; rows - i >= second / 4; i += second / 4)
            do_rows.template operator()<second / 4>(i);
    }
    for (; i < rows; i++)
        do_rows.template operator()<1>(i);
}

// Sums over channels of one or more sources: row i, lane o of vector v is
//   sum over t < TAPS, k < depth of a[t][k / n][i][k % n] * w[t][k][v][o],
// finish(i, v, Panel::Out vector) takes it. Sources are blocked with block_stride, w as
// for_each_weight lays it. ahead(a) gives what to call near while the block at `a` is read, n
// vectors, one a step.
// A sum of more than PiecewiseSums::longest products has the taps as its pieces.
template <class P, int ROWS, int TAPS, class Ahead, class Finish>
STARLIGHT_INLINE void channel_product(const typename P::L::Real *const (&sources)[TAPS],
                                      int64_t block_stride, int depth, const typename P::L::Real *w,
                                      int64_t tap_step, Ahead &ahead, Finish finish)
{
    using L = typename P::L;
    PiecewiseSums<L, ROWS, P::vectors> piecewise;
    auto &sums = piecewise.sums;
#pragma GCC unroll 1
    for (int t = 0; t < TAPS; t++, w += tap_step) {
        if constexpr (TAPS > 1)
            if (t > 0 && TAPS * depth > piecewise.longest) piecewise.end_piece();
        const typename L::Real *a = sources[t];
#pragma GCC unroll 1
        for (int c = 0; c < depth; c += L::n, a += block_stride) {
            const int steps = std::min(L::n, depth - c);
            const typename L::Real *const near = ahead(a);
#pragma GCC unroll 1
            for (int k = 0; k < steps; k += P::depth_step) {
                typename L::V weights[P::vectors];
#pragma GCC unroll 4
                for (int v = 0; v < P::vectors; v++)
                    weights[v] = L::load(w + v * L::n);
                w += P::vectors * L::n;
                __builtin_prefetch(near + k * L::n, 0, Ahead::locality);
#pragma GCC unroll 32
                for (int i = 0; i < ROWS; i++) {
                    const typename L::V s =
                        P::pair ? L::splat_pair(a + i * L::n + k) : L::splat(a[i * L::n + k]);
#pragma GCC unroll 4
                    for (int v = 0; v < P::vectors; v++)
                        sums[i][v] += s * weights[v];
                }
            }
        }
    }
    if constexpr (TAPS > 1) piecewise.add_before();
    P::finish_rows(sums, finish);
}

// Blocks lie too far apart for the processor to foresee.
template <class L> struct BlockAhead {
    static constexpr int locality = 3;
    int64_t block_stride;

    STARLIGHT_INLINE const typename L::Real *operator()(const typename L::Real *a) const
    {
        return a + 2 * block_stride;
    }
};

// All rows and outputs: sink.operator()<Out>(row, output, vector). Weights lie
// [tap][output][channel]; with SIDE_BY_SIDE, [output][tap][channel].
template <class L, int TAPS, bool SIDE_BY_SIDE, class Sink, class Ahead>
inline void channel_products(const typename L::Real *const (&sources)[TAPS], int64_t block_stride,
                             int64_t rows, int depth, const typename L::Real *w, int outputs,
                             Sink sink, Ahead &ahead)
{
    for_each_product_panel<L>(outputs, [&]<class P>(int o) {
        for_each_rows<P::rows>(rows, [&]<int ROWS>(int64_t first) {
            const typename L::Real *at[TAPS];
            for (int t = 0; t < TAPS; t++)
                at[t] = sources[t] + first * L::n;
            channel_product<P, ROWS>(
                at, block_stride, depth, w + int64_t{SIDE_BY_SIDE ? TAPS : 1} * o * depth,
                SIDE_BY_SIDE ? 0 : int64_t{outputs - P::outputs} * depth, ahead,
                [&](int i, int v, typename P::Out::V value) {
                    sink.template operator()<typename P::Out>(first + i, o + v * L::n, value);
                });
        });
    });
}

template <class L, int TAPS, class Sink>
inline void channel_products(const typename L::Real *const (&sources)[TAPS], int64_t block_stride,
                             int64_t rows, int depth, const typename L::Real *w, int outputs,
                             Sink sink)
{
    BlockAhead<L> ahead{block_stride};
    channel_products<L, TAPS, true>(sources, block_stride, rows, depth, w, outputs, sink, ahead);
}

// Where channel_product reads the weight of output i of the panel at o, channels of all taps side
// by side: panels of [depth][outputs]; with pairs [depth / 2][outputs][2].
template <class P> STARLIGHT_INLINE int64_t weight_index(int o, int i, int k, int depth)
{
    return int64_t{o} * depth + k / P::depth_step * (P::vectors * P::L::n) + P::lane(i, k);
}

// do_weight(output, channel, index).
template <class L, class Do> inline void for_each_weight(int depth, int outputs, Do do_weight)
{
    for_each_product_panel<L>(outputs, [&]<class P>(int o) {
        for (int k = 0; k < depth; k++)
            for (int i = 0; i < P::outputs; i++)
                do_weight(o + i, k, weight_index<P>(o, i, k, depth));
    });
}

// Sums over items, added to c: c[o][k] += sum over i < items of a[i][o] * b[k / n][i][k % n],
// for o < ROWS of one block of a, and VECTORS blocks of b.
template <class L, int ROWS, int VECTORS>
STARLIGHT_INLINE void item_product(const typename L::Real *a, const typename L::Real *b,
                                   int64_t b_block, int64_t b_item, int64_t items,
                                   typename L::Real *c, int64_t c_row)
{
    typename L::V sums[ROWS][VECTORS] = {};
#pragma GCC unroll 1
    for (int64_t i = 0; i < items; i++) {
        typename L::V vectors[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            vectors[v] = L::load(b + v * b_block + i * b_item);
#pragma GCC unroll 32
        for (int o = 0; o < ROWS; o++) {
            const typename L::V s = L::splat(a[i * L::n + o]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sums[o][v] += s * vectors[v];
        }
    }
#pragma GCC unroll 32
    for (int o = 0; o < ROWS; o++) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            typename L::Real *at = c + o * c_row + v * L::n;
            L::store(at, L::load(at) + sums[o][v]);
        }
    }
}

// All outputs and channels; a starts `lane` lanes into its first block, `lane` and `outputs`
// multiples of n / 2; `channels` a multiple of n; items of b lie b_item apart.
template <class L>
inline void item_products(const typename L::Real *a, int64_t a_block, int lane, int outputs,
                          const typename L::Real *b, int64_t b_block, int channels, int64_t items,
                          typename L::Real *c, int64_t c_row, int64_t b_item = L::n)
{
    constexpr int HALF = L::n / 2, ROWS_2 = L::accumulators / 2 >= L::n ? L::n : HALF;
    for (int k = 0; k < channels; k += k + 2 * L::n <= channels ? 2 * L::n : L::n) {
        const typename L::Real *b_k = b + (k / L::n) * b_block;
        for (int o = 0; o < outputs;) {
            const typename L::Real *a_o = a + ((lane + o) / L::n) * a_block + (lane + o) % L::n;
            typename L::Real *c_o = c + o * c_row + k;
            const bool whole = (lane + o) % L::n == 0 && o + L::n <= outputs;
            if (k + 2 * L::n <= channels) {
                if (whole && ROWS_2 == L::n) {
                    item_product<L, ROWS_2, 2>(a_o, b_k, b_block, b_item, items, c_o, c_row);
                    o += L::n;
                } else {
                    item_product<L, HALF, 2>(a_o, b_k, b_block, b_item, items, c_o, c_row);
                    o += HALF;
                }
            } else if (whole) {
                item_product<L, L::n, 1>(a_o, b_k, b_block, b_item, items, c_o, c_row);
                o += L::n;
            } else {
                item_product<L, HALF, 1>(a_o, b_k, b_block, b_item, items, c_o, c_row);
                o += HALF;
            }
        }
    }
}

} // namespace starlight::ops::STARLIGHT_ISA
