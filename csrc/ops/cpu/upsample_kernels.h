// The decoder's step up: one row of the input becomes two of the output. The 1x1's outputs are
// ordered by [dy][dx][c], so that every vector of sums is stored as it is:
//
//   in  y    | a | b |          quarter 0 1 of a, b:   out 2y      | a0 | a1 | b0 | b1 |
//                               quarter 2 3 of a, b:   out 2y + 1  | a2 | a3 | b2 | b3 |
#pragma once

#include "../upsample.h"
#include "growth.h"
#include "matmul.h"

#include <atomic>

namespace starlight::ops::STARLIGHT_ISA
{

// A quarter of the 1x1's outputs, padded to whole vectors: none spans two output pixels.
template <class L> struct UpsampleChannels {
    int depth, quarter;

    explicit UpsampleChannels(const Upsample &up)
        : depth(padded(up.inputs, L::n)), quarter(padded(up.outputs, L::n))
    {
    }
    static int padded(int channels, int to) { return (channels + to - 1) / to * to; }
};

template <class L> struct UpsampleParameters {
    using Real = typename L::Real;
    Real *weights, *bias;

    UpsampleParameters(Arena &arena, const UpsampleChannels<L> &channels)
        : weights(arena.take<Real>(int64_t{4} * channels.quarter * channels.depth)),
          bias(arena.take<Real>(4 * channels.quarter))
    {
    }
};

template <class L> size_t upsample_packed_bytes(const Upsample &up)
{
    Arena arena(nullptr);
    UpsampleParameters<L>(arena, UpsampleChannels<L>(up));
    return arena.bytes();
}

template <class L>
void upsample_pack(const Upsample &up, const void *weight, const void *bias, void *packed)
{
    using Real = typename L::Real;
    const UpsampleChannels<L> channels(up);
    Arena arena(packed);
    const UpsampleParameters<L> to(arena, channels);
    const auto output = [&](int o) { // the 1x1's own number; -1 in the padding
        const int c = o % channels.quarter;
        return c < up.outputs ? 4 * c + o / channels.quarter : -1;
    };
    for_each_weight<L>(channels.depth, 4 * channels.quarter, [&](int o, int k, int64_t index) {
        to.weights[index] =
            output(o) < 0 || k >= up.inputs
                ? Real(0)
                : static_cast<const Real *>(weight)[int64_t{output(o)} * up.inputs + k];
    });
    for (int o = 0; o < 4 * channels.quarter; o++)
        to.bias[o] = output(o) < 0 ? Real(0) : static_cast<const Real *>(bias)[output(o)];
}

template <class T, class L> struct UpsampleForward {
    using Real = typename L::Real;
    // Of a row at once: all quarters of them are written while their lines are near.
    static constexpr int64_t PIXELS = 2 * L::accumulators;

    Upsample up;
    ConstImage x, skip;
    const void *packed;
    Image out;
    char *workspace;
    UpsampleChannels<L> channels{up};
    std::atomic<int64_t> next_row = 0;

    static GrowthBuffer<L> buffer(Arena &arena, const Upsample &up)
    {
        const int64_t columns = std::min(up.width, PIXELS) + 1; // one more: no aliasing sets
        return {arena, 1, columns, UpsampleChannels<L>(up).depth / L::n, up.height, up.width};
    }
    static int64_t worker_bytes(const Upsample &up)
    {
        Arena arena(nullptr);
        buffer(arena, up);
        return arena.bytes();
    }

    static void work(void *job, int index)
    {
        auto &self = *static_cast<UpsampleForward *>(job);
        Arena packed(const_cast<void *>(self.packed));
        const UpsampleParameters<L> parameters(packed, self.channels);
        Arena arena(self.workspace + index * worker_bytes(self.up));
        GrowthBuffer<L> row = buffer(arena, self.up);
        for (;;) {
            const int64_t item = self.next_row.fetch_add(1, std::memory_order_relaxed);
            if (item >= self.up.images * self.up.height) return;
            for (int64_t x = 0; x < self.up.width; x += PIXELS)
                self.do_pixels(item / self.up.height, item % self.up.height,
                               {x, std::min(x + PIXELS, self.up.width)}, parameters, row);
        }
    }

    void do_pixels(int64_t image, int64_t y, Span pixels, const UpsampleParameters<L> &parameters,
                   GrowthBuffer<L> &row) const
    {
        row.first_column = pixels.begin;
        row.fill(row.data, 0, pixels,
                 static_cast<const T *>(x.data) + image * x.image_stride + y * x.row_stride,
                 x.pixel_stride, up.inputs);
        T *const to = static_cast<T *>(out.data) + image * out.image_stride +
                      2 * y * out.row_stride + 2 * pixels.begin * out.pixel_stride;
        const T *const added = skip.data ? static_cast<const T *>(skip.data) +
                                               image * skip.image_stride + 2 * y * skip.row_stride +
                                               2 * pixels.begin * skip.pixel_stride
                                         : nullptr;
        const int64_t ahead = 2 * PIXELS * skip.pixel_stride;
        channel_products<L, 1>(
            {row.data}, row.block_stride(), pixels.size(), channels.depth, parameters.weights,
            4 * channels.quarter,
            [&]<class W>(int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                const int place = output / channels.quarter, c = output % channels.quarter;
                const int64_t dy = place / 2, dx = 2 * i + place % 2;
                value += W::load(parameters.bias + output);
                if (added) {
                    const T *const at = added + dy * skip.row_stride + dx * skip.pixel_stride + c;
                    __builtin_prefetch(at + ahead);
                    value += load_as<W>(at, up.outputs - c);
                }
                store_as<W>(to + dy * out.row_stride + dx * out.pixel_stride + c, value,
                            up.outputs - c);
            });
    }
};

template <class T, class L> size_t upsample_forward_bytes(const Upsample &up, int workers)
{
    return workers * UpsampleForward<T, L>::worker_bytes(up);
}

template <class T, class L>
void upsample_forward(const Upsample &up, const ConstImage &x, const ConstImage &skip,
                      const void *packed, const Image &out, void *workspace, const Pool &pool)
{
    UpsampleForward<T, L> job{up, x, skip, packed, out, static_cast<char *>(workspace)};
    pool.run(pool.context, job.work, &job);
}

} // namespace starlight::ops::STARLIGHT_ISA
