// 3x3 convolution by Winograd's F(4x4, 3x3): 36 products for 144.
// Interpolation points 0, +-sqrt(1/2), +-sqrt(2), infinity: a third to a fifth of the rounding
// error of the usual 0, +-1, +-2. The tile grid is the image's own, so that a result does not
// depend on how the image is cut.
#pragma once

#include "growth.h"
#include "matmul.h"

#include <array>

namespace starlight::ops::STARLIGHT_ISA
{

struct WinogradPoints {
    static constexpr double a = 0.70710678118654752440, b = 1.41421356237309504880;

    // Six samples of a row to six products' left sides.
    template <class V> STARLIGHT_INLINE static void input(const V d[6], V r[6])
    {
        using R = std::remove_reference_t<decltype(d[0][0])>;
        const V even_a = d[4] - R(2) * d[2], odd_a = d[3] - R(2) * d[1];
        const V even_b = d[4] - R(0.5) * d[2], odd_b = d[3] - R(0.5) * d[1];
        r[0] = d[0] + (d[4] - R(2.5) * d[2]);
        r[1] = even_a + R(a) * odd_a;
        r[2] = even_a - R(a) * odd_a;
        r[3] = even_b + R(b) * odd_b;
        r[4] = even_b - R(b) * odd_b;
        r[5] = d[1] + (d[5] - R(2.5) * d[3]);
    }
    // Six products to four outputs.
    template <class V> STARLIGHT_INLINE static void output(const V m[6], V y[4])
    {
        using R = std::remove_reference_t<decltype(m[0][0])>;
        const V sum_a = m[1] + m[2], difference_a = m[1] - m[2];
        const V sum_b = m[3] + m[4], difference_b = m[3] - m[4];
        y[0] = m[0] + sum_a + sum_b;
        y[1] = R(a) * difference_a + R(b) * difference_b;
        y[2] = R(0.5) * sum_a + R(2) * sum_b;
        y[3] = m[5] + (R(a / 2) * difference_a + R(2 * b) * difference_b);
    }
    // The transpose of `output`: four gradients to six.
    template <class V> STARLIGHT_INLINE static void gradient(const V y[4], V r[6])
    {
        using R = std::remove_reference_t<decltype(y[0][0])>;
        const V even_a = y[0] + R(0.5) * y[2], odd_a = y[1] + R(0.5) * y[3];
        const V even_b = y[0] + R(2) * y[2], odd_b = y[1] + R(2) * y[3];
        r[0] = y[0];
        r[1] = even_a + R(a) * odd_a;
        r[2] = even_a - R(a) * odd_a;
        r[3] = even_b + R(b) * odd_b;
        r[4] = even_b - R(b) * odd_b;
        r[5] = y[3];
    }
    // Kernels evaluate at the points, divided by the products of their distances.
    static constexpr double kernel[6][3] = {
        {1, 0, 0},
        {-2. / 3, -2. / 3 * a, -1. / 3},
        {-2. / 3, 2. / 3 * a, -1. / 3},
        {1. / 6, b / 6, 1. / 3},
        {1. / 6, -b / 6, 1. / 3},
        {0, 0, 1},
    };
};

// Planes, one per product, of [block][tile][lane].
template <class L> struct WinogradPlanes {
    using Real = typename L::Real;
    Real *data;
    int64_t tiles, plane;

    WinogradPlanes(Arena &arena, int64_t tiles, int blocks, int products = 36)
        : tiles(tiles), plane((blocks * tiles + 1) * L::n) // a vector more: no aliasing sets
    {
        data = arena.take<Real>(products * plane);
    }
    int64_t block_stride() const { return tiles * L::n; }
    Real *at(int product, int channel, int64_t tile) const
    {
        return data + product * plane + channel / L::n * block_stride() + tile * L::n +
               channel % L::n;
    }
};

// Transforms along the rows of a rectangle of ROWS x COLUMNS values, to OUT_COLUMNS each, then
// along its columns, to OUT_ROWS; load(row, column), store(row, column, value).
template <class W, int ROWS, int COLUMNS, int OUT_ROWS, int OUT_COLUMNS, class AlongRow,
          class AlongColumn, class Load, class Store>
STARLIGHT_INLINE void transform_rectangle(AlongRow along_row, AlongColumn along_column, Load load,
                                          Store store)
{
    typename W::V across[ROWS][OUT_COLUMNS];
#pragma GCC unroll 6
    for (int i = 0; i < ROWS; i++) {
        typename W::V samples[COLUMNS];
#pragma GCC unroll 6
        for (int j = 0; j < COLUMNS; j++)
            samples[j] = load(i, j);
        along_row(samples, across[i]);
    }
#pragma GCC unroll 6
    for (int j = 0; j < OUT_COLUMNS; j++) {
        typename W::V column[ROWS], values[OUT_ROWS];
#pragma GCC unroll 6
        for (int i = 0; i < ROWS; i++)
            column[i] = across[i][j];
        along_column(column, values);
#pragma GCC unroll 6
        for (int i = 0; i < OUT_ROWS; i++)
            store(i, j, values[i]);
    }
}

template <class W, int IN, int OUT, class Transform, class Load, class Store>
STARLIGHT_INLINE void transform_square(Transform transform, Load load, Store store)
{
    transform_rectangle<W, IN, IN, OUT, OUT>(transform, transform, load, store);
}

// One tile, lanes of W: `rows` point at its first sample, samples lie L::n apart.
template <class L, class W>
STARLIGHT_INLINE void winograd_input(const typename L::Real *const rows[6], int64_t offset,
                                     typename L::Real *out, int64_t plane)
{
    transform_square<W, 6, 6>(
        [](const auto &d, auto &r) STARLIGHT_LAMBDA { WinogradPoints::input(d, r); },
        [&](int i, int j) STARLIGHT_LAMBDA { return W::load(rows[i] + offset + j * L::n); },
        [&](int i, int j, typename W::V v)
            STARLIGHT_LAMBDA { W::store(out + (i * 6 + j) * plane, v); });
}

template <class L, class W>
STARLIGHT_INLINE void winograd_output(const typename L::Real *products, int64_t plane,
                                      typename W::V out[4][4])
{
    transform_square<W, 6, 4>(
        [](const auto &m, auto &y) STARLIGHT_LAMBDA { WinogradPoints::output(m, y); },
        [&](int i, int j) STARLIGHT_LAMBDA { return W::load(products + (i * 6 + j) * plane); },
        [&](int i, int j, typename W::V v) STARLIGHT_LAMBDA { out[i][j] = v; });
}

template <class L, class W>
STARLIGHT_INLINE void winograd_gradient(const typename L::Real *const rows[4], int64_t offset,
                                        typename L::Real *out, int64_t plane)
{
    transform_square<W, 4, 6>(
        [](const auto &y, auto &r) STARLIGHT_LAMBDA { WinogradPoints::gradient(y, r); },
        [&](int i, int j) STARLIGHT_LAMBDA { return W::load(rows[i] + offset + j * L::n); },
        [&](int i, int j, typename W::V v)
            STARLIGHT_LAMBDA { W::store(out + (i * 6 + j) * plane, v); });
}

// do_lanes.operator()<W>(channel) over [begin, begin + channels), whole blocks where they fit.
template <class L, class Do>
STARLIGHT_INLINE void for_each_lanes(int begin, int channels, Do do_lanes)
{
    for (int c = begin; c < begin + channels;) {
        if (c % L::n == 0 && c + L::n <= begin + channels) {
            do_lanes.template operator()<L>(c);
            c += L::n;
        } else {
            do_lanes.template operator()<typename L::Half>(c);
            c += L::n / 2;
        }
    }
}

// Transforms channels [begin, begin + channels) of tiles in one row of tiles; the first becomes
// tile `to` of the planes.
template <class L>
inline void winograd_read(const GrowthBuffer<L> &buffer, int begin, int channels, int64_t row,
                          Span tiles, const WinogradPlanes<L> &planes, int64_t to)
{
    for_each_lanes<L>(begin, channels, [&]<class W>(int channel) {
        const typename L::Real *rows[6];
        for (int i = 0; i < 6; i++)
            rows[i] = buffer.cell(buffer.row(row * 4 + i - 1), channel, tiles.begin * 4 - 1);
        for (int64_t t = 0; t < tiles.size(); t++)
            winograd_input<L, W>(rows, t * 4 * L::n, planes.at(0, channel, to + t), planes.plane);
    });
}

// weight(output, channel, ky, kx). Points::kernel transforms kernels along one side.
template <class L, class Points, class Weight>
inline void pack_winograd(typename L::Real *w, int depth, int outputs, Weight weight)
{
    using Real = typename L::Real;
    const auto &G = Points::kernel;
    constexpr int points = std::extent_v<decltype(Points::kernel)>;
    for_each_product_panel<L>(outputs, [&]<class P>(int o) {
        constexpr int n = P::outputs;
        for (int k = 0; k < depth; k++) {
            double kernel[3][3][n], across[3][points][n];
            for (int i = 0; i < n; i++)
                for (int tap = 0; tap < 9; tap++)
                    kernel[tap / 3][tap % 3][i] = weight(o + i, k, tap / 3, tap % 3);
            for (int ky = 0; ky < 3; ky++)
                for (int x = 0; x < points; x++)
                    for (int i = 0; i < n; i++)
                        across[ky][x][i] = G[x][0] * kernel[ky][0][i] + G[x][1] * kernel[ky][1][i] +
                                           G[x][2] * kernel[ky][2][i];
            for (int y = 0; y < points; y++)
                for (int x = 0; x < points; x++) {
                    Real *const to = w + (y * points + x) * int64_t{outputs} * depth;
                    for (int i = 0; i < n; i++)
                        to[weight_index<P>(o, i, k, depth)] =
                            Real(G[y][0] * across[0][x][i] + G[y][1] * across[1][x][i] +
                                 G[y][2] * across[2][x][i]);
                }
        }
    });
}

// Convolutions by rows of 4x4 tiles. Transformed sources are kept for three rows of tiles: the
// dense block's convolutions share them.
template <class L> class Winograd
{
public:
    using Real = typename L::Real;
    static constexpr int unit = 4;
    static constexpr int taps = 36;

    Winograd(Arena &arena, int64_t tiles, int blocks, int output_blocks)
        : rows_{{arena, tiles, blocks}, {arena, tiles, blocks}, {arena, tiles, blocks}},
          products_(arena, chunk_most, output_blocks)
    {
    }

    template <class Weight> static void pack(Real *w, int depth, int outputs, Weight weight)
    {
        pack_winograd<L, WinogradPoints>(w, depth, outputs, weight);
    }

    // Transforms channels [begin, begin + channels) of tile row `row`.
    void read(const GrowthBuffer<L> &buffer, int begin, int channels, int64_t row, Span tiles)
    {
        winograd_read(buffer, begin, channels, row, tiles, rows_[row % 3],
                      tiles.begin - floor_tile(buffer.first_column));
    }

    template <class MakeSink>
    void convolve(const GrowthBuffer<L> &buffer, const Layer<L> &layer, int64_t row, Span tiles,
                  MakeSink make_sink)
    {
        const int64_t first_tile = floor_tile(buffer.first_column);
        const std::array sinks{make_sink(row * 4), make_sink(row * 4 + 1), make_sink(row * 4 + 2),
                               make_sink(row * 4 + 3)};
        const int64_t chunks = (tiles.size() + chunk_most - 1) / chunk_most;
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const Span part{tiles.begin + tiles.size() * chunk / chunks,
                            tiles.begin + tiles.size() * (chunk + 1) / chunks};
            multiply(rows_[row % 3], layer, {part.begin - first_tile, part.end - first_tile});
            for_each_lanes<L>(0, layer.outputs, [&]<class W>(int output) {
                finish<W>(part, output, buffer, row, sinks);
            });
        }
    }

private:
    static constexpr int chunk_most = 48;

    static int64_t floor_tile(int64_t column) { return column >> 2; }

    void multiply(const WinogradPlanes<L> &in, const Layer<L> &layer, Span tiles)
    {
        for (int product = 0; product < 36; product++)
            channel_products<L, 1>(
                {in.at(product, 0, tiles.begin)}, in.block_stride(), tiles.size(), layer.depth,
                layer.weights + int64_t{product} * layer.outputs * layer.depth, layer.outputs,
                [&]<class W>(int64_t tile, int output, typename W::V value)
                    STARLIGHT_LAMBDA { W::store(products_.at(product, output, tile), value); });
    }

    template <class W, class Sinks>
    void finish(Span tiles, int output, const GrowthBuffer<L> &buffer, int64_t row,
                const Sinks &sinks)
    {
        const int rows = int(std::min<int64_t>(4, buffer.height - row * 4));
        for (int64_t t = tiles.begin; t < tiles.end; t++) {
            typename W::V values[4][4];
            winograd_output<L, W>(products_.at(0, output, t - tiles.begin), products_.plane,
                                  values);
            const int columns = int(std::min<int64_t>(4, buffer.width - t * 4));
            if (rows == 4 && columns == 4) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
#pragma GCC unroll 4
                    for (int j = 0; j < 4; j++)
                        sinks[i].template operator()<W>(t * 4 + j, output, values[i][j]);
                }
            } else {
                for (int i = 0; i < rows; i++)
                    for (int j = 0; j < columns; j++)
                        sinks[i].template operator()<W>(t * 4 + j, output, values[i][j]);
            }
        }
    }

    WinogradPlanes<L> rows_[3];
    WinogradPlanes<L> products_;
};

} // namespace starlight::ops::STARLIGHT_ISA
