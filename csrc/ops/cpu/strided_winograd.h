// 3x3 convolution of stride 2 by Winograd's products of its phases: 81 for 144.
//
// Even and odd rows and columns of x are images of their own, on which the nine taps are four
// convolutions of stride 1, 2x2, 2x1, 1x2 and 1x1, whose sum is wanted. Along one side, for four
// outputs:
//
//   odd   o[-1] o[0] o[1] o[2] o[3]   two taps: 5 products, at +-a, +-b, infinity
//   even     e[0] e[1] e[2] e[3]      one tap:  4 products, at +-a, +-b
//
// One tap is two of which the second is zero, and so is its product at infinity. Both are then
// products at the same points, and phases are summed there: of 9 x 9 products 5 x 5 sums are left
// to transform to outputs.
#pragma once

#include "strided_conv_kernels.h"

namespace starlight::ops::STARLIGHT_ISA
{

// Points near the least rounding error, 0.42 and 1.36, that float holds exactly, squares as well.
struct PolyphasePoints {
    static constexpr double a = 7. / 16, b = 21. / 16;

    // A phase's samples to its products: five of an odd phase, four of an even one.
    template <int PRODUCTS, class V>
    STARLIGHT_INLINE static void input(const V (&d)[PRODUCTS], V (&r)[PRODUCTS])
    {
        using R = std::remove_reference_t<decltype(d[0][0])>;
        const V low_a = d[2] - R(b * b) * d[0], high_a = d[3] - R(b * b) * d[1];
        const V low_b = d[2] - R(a * a) * d[0], high_b = d[3] - R(a * a) * d[1];
        r[0] = high_a + R(a) * low_a;
        r[1] = high_a - R(a) * low_a;
        r[2] = high_b + R(b) * low_b;
        r[3] = high_b - R(b) * low_b;
        if constexpr (PRODUCTS == 5) r[4] = (d[4] - R(a * a) * d[2]) - R(b * b) * low_b;
    }
    // Five sums to four outputs.
    template <class V> STARLIGHT_INLINE static void output(const V m[5], V y[4])
    {
        using R = std::remove_reference_t<decltype(m[0][0])>;
        const V sum_a = m[0] + m[1], difference_a = m[0] - m[1];
        const V sum_b = m[2] + m[3], difference_b = m[2] - m[3];
        y[0] = sum_a + sum_b;
        y[1] = R(a) * difference_a + R(b) * difference_b;
        y[2] = R(a * a) * sum_a + R(b * b) * sum_b;
        y[3] = m[4] + (R(a * a * a) * difference_a + R(b * b * b) * difference_b);
    }
    static constexpr double at_a = 1 / (2 * a * (a * a - b * b)),
                            at_b = 1 / (2 * b * (b * b - a * a));
    static constexpr double kernel[9][3] = {
        {at_a, 0, at_a * a}, {-at_a, 0, at_a * a}, {at_b, 0, at_b * b}, {-at_b, 0, at_b * b},
        {0, 0, 1},           {0, at_a, 0},         {0, -at_a, 0},       {0, at_b, 0},
        {0, -at_b, 0},
    };
    // Point by point, even phases first.
    static constexpr int place(int y, int x)
    {
        const int i = y % 5, j = x % 5, rows = i < 4 ? 2 : 1, columns = j < 4 ? 2 : 1;
        const int row = rows - 1 - y / 5, column = columns - 1 - x / 5;
        return i * 18 + j * 2 * rows + row * columns + column;
    }
};

template <class L> struct Polyphase {
    static constexpr int taps = 81;

    template <class Weight>
    static void pack(typename L::Real *w, int depth, int outputs, Weight weight)
    {
        pack_winograd<L, PolyphasePoints>(w, depth, outputs, weight);
    }
};

// Tiles of 4x4 outputs, of all images in one sequence.
struct StridedTiles {
    int64_t images, rows, columns; // of an image

    explicit StridedTiles(const StridedConv &conv)
        : images(conv.images), rows((conv.out_height() + 3) / 4),
          columns((conv.out_width() + 3) / 4)
    {
    }
    int64_t count() const { return images * rows * columns; }

    // Of a tile: its image, its first output.
    struct Place {
        int64_t image, y, x;
    };
    Place operator[](int64_t tile) const
    {
        return {tile / columns / rows, tile / columns % rows * 4, tile % columns * 4};
    }
};

// Of some tiles, SIDE x SIDE pixels each: strides in bytes.
struct TilePixels {
    const char *data;
    int64_t image_stride, row_stride, pixel_stride;
    int side;
    Span tiles;

    template <class T, class I> static TilePixels of(const I &image, int side, Span tiles)
    {
        const int64_t bytes = sizeof(T);
        return {static_cast<const char *>(image.data),
                image.image_stride * bytes,
                image.row_stride * bytes,
                image.pixel_stride * bytes,
                side,
                tiles};
    }
};

// Calls pixels near, line by line, while products are made: of what is read next, then of what is
// written next.
template <class L> class TilesAhead
{
public:
    static constexpr int locality = 2;

    TilesAhead(const StridedTiles &tiles, const TilePixels &read, const TilePixels &written,
               BlockAhead<L> after)
        : tiles_(tiles), pixels_{read, written}, after_(after)
    {
    }

    const typename L::Real *operator()(const typename L::Real *a)
    {
        if (at_ >= end_ && !next_run()) return after_(a);
        const char *const at = at_;
        at_ += L::n * sizeof(typename L::V);
        return reinterpret_cast<const typename L::Real *>(at);
    }

private:
    // Tiles side by side have their rows in common.
    bool next_run()
    {
        while (which_ < 2 && pixels_[which_].tiles.size() <= 0)
            which_++;
        if (which_ == 2) return false;
        TilePixels &pixels = pixels_[which_];
        const StridedTiles::Place first = tiles_[pixels.tiles.begin];
        const int64_t count = std::min(pixels.tiles.size(), tiles_.columns - first.x / 4);
        at_ = pixels.data + first.image * pixels.image_stride +
              (first.y / 4 * pixels.side + row_) * pixels.row_stride +
              first.x / 4 * pixels.side * pixels.pixel_stride;
        end_ = at_ + count * pixels.side * pixels.pixel_stride;
        if (++row_ == pixels.side) {
            row_ = 0;
            pixels.tiles.begin += count;
        }
        return true;
    }

    StridedTiles tiles_;
    TilePixels pixels_[2];
    BlockAhead<L> after_;
    int which_ = 0, row_ = 0;
    const char *at_ = nullptr, *end_ = nullptr;
};

// Workers take tiles in chunks: few, so that all their products stay in the core's own cache.
template <class T, class L> struct PolyphaseForward {
    using Real = typename L::Real;
    static constexpr int64_t chunk_most = 16;

    StridedConv conv;
    ConstImage x;
    const void *packed;
    Image out;
    char *workspace;
    int workers;
    StridedChannels<L> channels{conv};
    StridedTiles tiles{conv};
    int64_t chunk = chunk_of(tiles.count(), workers);
    std::atomic<int64_t> next_chunk = 0;

    // As many as fit, unless with fewer the workers end together.
    static int64_t chunk_of(int64_t tiles, int workers)
    {
        const auto longest = [&](int64_t chunk) {
            return ((tiles - 1) / (chunk * workers) + 1) * chunk;
        };
        int64_t best = chunk_most;
        for (const int64_t fewer : {12, 8})
            if (longest(fewer) * 20 < longest(best) * 19) best = fewer;
        return best;
    }

    struct Worker {
        WinogradPlanes<L> inputs, products;
        Real *patch; // 9 x 9 samples of a block of channels
        int64_t bytes;

        Worker(Arena arena, const StridedConv &conv) : Worker(arena, StridedChannels<L>(conv)) {}
        Worker(Arena &arena, const StridedChannels<L> &channels)
            : inputs(arena, chunk_most, channels.input_blocks(), 81),
              products(arena, chunk_most, channels.output_blocks(), 25),
              patch(arena.take<Real>(81 * L::n)), bytes(arena.bytes())
        {
        }
    };

    static int64_t worker_bytes(const StridedConv &conv)
    {
        return Worker(Arena(nullptr), conv).bytes;
    }

    static void work(void *job, int index)
    {
        auto &self = *static_cast<PolyphaseForward *>(job);
        Arena packed(const_cast<void *>(self.packed));
        const StridedParameters<L, Polyphase<L>> parameters(packed, self.channels);
        const Worker worker(Arena(self.workspace + index * worker_bytes(self.conv)), self.conv);
        for (Span now = self.take(); now.size() > 0;) {
            const Span next = self.take();
            for (int64_t i = 0; i < now.size(); i++)
                self.read(self.tiles[now.begin + i], i, worker);
            TilesAhead<L> ahead(self.tiles, TilePixels::of<T>(self.x, 8, next),
                                TilePixels::of<T>(self.out, 4, now),
                                {worker.inputs.block_stride()});
            self.multiply(parameters.weights, now.size(), worker, ahead);
            for (int64_t i = 0; i < now.size(); i++)
                self.write(self.tiles[now.begin + i], i, parameters.bias, worker);
            now = next;
        }
    }

    Span take()
    {
        const int64_t first = next_chunk.fetch_add(1, std::memory_order_relaxed) * chunk;
        return {std::min(first, tiles.count()), std::min(first + chunk, tiles.count())};
    }

    void read(const StridedTiles::Place &at, int64_t tile, const Worker &worker) const
    {
        const int64_t y = 2 * at.y - 1, left = 2 * at.x - 1;
        const bool inside = y >= 0 && left >= 0 && y + 9 <= conv.height && left + 9 <= conv.width;
        const T *const from = static_cast<const T *>(x.data) + at.image * x.image_stride +
                              y * x.row_stride + left * x.pixel_stride;
        for (int c = 0; c < channels.inputs; c += L::n) {
            Real *const to = worker.inputs.at(0, c, tile);
            if (inside && c + L::n <= conv.inputs) {
                transform(from + c, x.row_stride, x.pixel_stride, to, worker.inputs.plane);
                continue;
            }
            for (int i = 0; i < 9; i++)
                for (int j = 0; j < 9; j++) {
                    const bool there =
                        y + i >= 0 && y + i < conv.height && left + j >= 0 && left + j < conv.width;
                    L::store(worker.patch + (i * 9 + j) * L::n,
                             there ? load_as<L>(from + i * x.row_stride + j * x.pixel_stride + c,
                                                conv.inputs - c)
                                   : typename L::V{});
                }
            transform(worker.patch, 9 * L::n, L::n, to, worker.inputs.plane);
        }
    }

    // Each phase by itself: its values fit the registers.
    template <class Sample>
    static void transform(const Sample *from, int64_t row, int64_t pixel, Real *to, int64_t plane)
    {
        const auto phase = [&]<int ROWS, int COLUMNS>() STARLIGHT_LAMBDA {
            constexpr int y = ROWS == 4, x = COLUMNS == 4;
            const auto along = [](const auto &d, auto &r)
                                   STARLIGHT_LAMBDA { PolyphasePoints::input(d, r); };
            transform_rectangle<L, ROWS, COLUMNS, ROWS, COLUMNS>(
                along, along,
                [&](int i, int j) STARLIGHT_LAMBDA {
                    return load_as<L>(from + (2 * i + y) * row + (2 * j + x) * pixel, L::n);
                },
                [&](int i, int j, typename L::V v)
                    STARLIGHT_LAMBDA { L::store(to + ((5 * y + i) * 9 + 5 * x + j) * plane, v); });
        };
        phase.template operator()<5, 5>();
        phase.template operator()<5, 4>();
        phase.template operator()<4, 5>();
        phase.template operator()<4, 4>();
    }

    // At a point all phases are one sum, the largest, of odd rows and columns, last; of many
    // channels each is summed by itself first: one long sum would have up to twice the rounding
    // error.
    void multiply(const Real *weights, int64_t count, const Worker &worker,
                  TilesAhead<L> &ahead) const
    {
        for (int point = 0; point < 25; point++) {
            const Real *sources[4];
            int taps = 0;
            for (int y = point < 20 ? point / 5 + 5 : 4; y >= 0; y -= 5)
                for (int x = point % 5 < 4 ? point % 5 + 5 : 4; x >= 0; x -= 5)
                    sources[taps++] = worker.inputs.at(y * 9 + x, 0, 0);
            const auto sum = [&]<int TAPS>(int tap) {
                const Real *some[TAPS];
                std::copy_n(sources + tap, TAPS, some);
                channel_products<L, TAPS, false>(
                    some, worker.inputs.block_stride(), count, channels.inputs, weights,
                    channels.outputs,
                    [&]<class W>(int64_t tile, int output, typename W::V value) STARLIGHT_LAMBDA {
                        Real *const to = worker.products.at(point, output, tile);
                        W::store(to, tap == 0 ? value : W::load(to) + value);
                    },
                    ahead);
                weights += int64_t{TAPS} * channels.outputs * channels.inputs;
            };
            if (channels.inputs > 32) {
                for (int tap = 0; tap < taps; tap++)
                    sum.template operator()<1>(tap);
            } else if (taps == 4) {
                sum.template operator()<4>(0);
            } else if (taps == 2) {
                sum.template operator()<2>(0);
            } else {
                sum.template operator()<1>(0);
            }
        }
    }

    void write(const StridedTiles::Place &at, int64_t tile, const Real *bias,
               const Worker &worker) const
    {
        const int64_t high = conv.out_height() - at.y, wide = conv.out_width() - at.x;
        T *const to = static_cast<T *>(out.data) + at.image * out.image_stride +
                      at.y * out.row_stride + at.x * out.pixel_stride;
        for_each_lanes<L>(0, channels.outputs, [&]<class W>(int output) {
            const typename W::V added = W::load(bias + output);
            const Real *const from = worker.products.at(0, output, tile);
            const bool whole = high >= 4 && wide >= 4;
            transform_square<W, 5, 4>(
                [](const auto &m, auto &y) STARLIGHT_LAMBDA { PolyphasePoints::output(m, y); },
                [&](int i, int j) STARLIGHT_LAMBDA {
                    return W::load(from + (i * 5 + j) * worker.products.plane);
                },
                [&](int i, int j, typename W::V v) STARLIGHT_LAMBDA {
                    if (!whole && (i >= high || j >= wide)) return;
                    v += added;
                    store_as<W>(to + i * out.row_stride + j * out.pixel_stride + output,
                                conv.relu ? W::relu(v) : v, conv.outputs - output);
                });
        });
    }
};

template <class T, class L> size_t polyphase_forward_bytes(const StridedConv &conv, int workers)
{
    return workers * PolyphaseForward<T, L>::worker_bytes(conv);
}

template <class T, class L>
void polyphase_forward(const StridedConv &conv, const ConstImage &x, const void *packed,
                       const Image &out, void *workspace, const Pool &pool)
{
    PolyphaseForward<T, L> job{conv, x, packed, out, static_cast<char *>(workspace), pool.workers};
    pool.run(pool.context, job.work, &job);
}

} // namespace starlight::ops::STARLIGHT_ISA
