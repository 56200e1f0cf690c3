// 3x3 convolution of stride 1: regions of the image through a ring of blocked rows, as the dense
// block's convolutions go, with nothing behind it.
#pragma once

#include "../conv3x3.h"
#include "dense_chain.h"
#include "direct.h"
#include "winograd.h"

namespace starlight::ops::STARLIGHT_ISA
{

// Padded: outputs to half vectors; inputs as well for Winograd, to pairs for direct.
template <class L, class Convolution> struct ConvChannels {
    int inputs, outputs;

    explicit ConvChannels(const Conv3x3 &conv)
        : inputs(padded(conv.inputs, Convolution::unit == 1 ? 2 : L::n / 2)),
          outputs(padded(conv.outputs, L::n / 2))
    {
    }
    static int padded(int channels, int to) { return (channels + to - 1) / to * to; }
    static int blocks(int channels) { return padded(channels, L::n) / L::n; }
};

template <class L, class Convolution> struct ConvParameters {
    using Real = typename L::Real;
    Real *weights, *bias;

    ConvParameters(Arena &arena, const ConvChannels<L, Convolution> &channels)
        : weights(
              arena.take<Real>(int64_t{Convolution::taps} * channels.inputs * channels.outputs)),
          bias(arena.take<Real>(channels.outputs))
    {
    }
};

template <class L, class Convolution> size_t conv_packed_bytes(const Conv3x3 &conv)
{
    Arena arena(nullptr);
    ConvParameters<L, Convolution>(arena, ConvChannels<L, Convolution>(conv));
    return arena.bytes();
}

template <class L, class Convolution>
void conv_pack(const Conv3x3 &conv, const void *weight, const void *bias, void *packed)
{
    using Real = typename L::Real;
    const ConvChannels<L, Convolution> channels(conv);
    Arena arena(packed);
    const ConvParameters<L, Convolution> to(arena, channels);
    const Real *from = static_cast<const Real *>(weight);
    Convolution::pack(to.weights, channels.inputs, channels.outputs,
                      [&](int o, int c, int ky, int kx) {
                          if (o >= conv.outputs || c >= conv.inputs) return Real(0);
                          return from[((int64_t{o} * conv.inputs + c) * 3 + ky) * 3 + kx];
                      });
    for (int o = 0; o < channels.outputs; o++)
        to.bias[o] = o < conv.outputs ? static_cast<const Real *>(bias)[o] : Real(0);
}

template <class T, class L, class Convolution> struct ConvForward {
    using Real = typename L::Real;
    static constexpr int64_t unit = Convolution::unit;

    Conv3x3 conv;
    ConstImage x, skip;
    const void *packed;
    Image out;
    char *workspace;
    int workers;
    ConvChannels<L, Convolution> channels{conv};
    Regions regions = cut(conv, workers);
    std::atomic<int64_t> next_region = 0;

    // Columns so that the rolling rows stay near the core; rows so that all workers have some.
    static Regions cut(const Conv3x3 &conv, int workers)
    {
        const int64_t units = (conv.height + unit - 1) / unit;
        const int64_t columns = (conv.inputs <= 64 ? 512 : 256) / unit;
        const int64_t parts = (4 * workers - 1) / conv.images + 1;
        return Regions(conv, unit, std::max<int64_t>((units + parts - 1) / parts, 16 / unit),
                       columns);
    }

    struct Worker {
        GrowthBuffer<L> buffer;
        Convolution convolution;
        int64_t bytes;

        Worker(Arena arena, const Conv3x3 &conv, const Regions &regions)
            : Worker(arena, conv, regions, ConvChannels<L, Convolution>(conv))
        {
        }
        // A column left of the region and one right of it, in whole units.
        Worker(Arena &arena, const Conv3x3 &conv, const Regions &regions,
               const ConvChannels<L, Convolution> &channels)
            : buffer(arena, unit + 2, (regions.most_columns() + 2) * unit,
                     channels.blocks(channels.inputs), conv.height, conv.width),
              convolution(arena, regions.most_columns() + 2, channels.blocks(channels.inputs),
                          channels.blocks(channels.outputs)),
              bytes(arena.bytes())
        {
        }
    };

    static int64_t worker_bytes(const Conv3x3 &conv, int workers)
    {
        return Worker(Arena(nullptr), conv, cut(conv, workers)).bytes;
    }

    static void work(void *job, int index)
    {
        auto &self = *static_cast<ConvForward *>(job);
        Arena packed(const_cast<void *>(self.packed));
        const ConvParameters<L, Convolution> parameters(packed, self.channels);
        Worker worker(Arena(self.workspace + index * worker_bytes(self.conv, self.workers)),
                      self.conv, self.regions);
        for (;;) {
            const int64_t item = self.next_region.fetch_add(1, std::memory_order_relaxed);
            if (item >= self.regions.count()) return;
            self.do_region(self.regions[item], parameters, worker);
        }
    }

    void do_region(const Region &region, const ConvParameters<L, Convolution> &parameters,
                   Worker &worker) const
    {
        const Layer<L> layer{channels.inputs, channels.outputs, parameters.weights};
        const T *const from = static_cast<const T *>(x.data) + region.image * x.image_stride;
        const T *const added =
            skip.data ? static_cast<const T *>(skip.data) + region.image * skip.image_stride
                      : nullptr;
        T *const to = static_cast<T *>(out.data) + region.image * out.image_stride;
        const Span pixels{region.columns.begin * unit,
                          std::min(region.columns.end * unit, conv.width)};
        const Span read = widened(pixels, 1, conv.width);
        GrowthBuffer<L> &buffer = worker.buffer;
        int64_t next = std::max<int64_t>(region.rows.begin * unit - 1, 0);
        buffer.reset(next, (region.columns.begin - 1) * unit);
        for (int64_t row = region.rows.begin; row < region.rows.end; row++) {
            for (; next < std::min((row + 1) * unit + 1, conv.height); next++)
                buffer.fill(buffer.row(next), 0, read, from + next * x.row_stride, x.pixel_stride,
                            conv.inputs);
            worker.convolution.read(buffer, 0, channels.inputs, row, region.columns);
            worker.convolution.convolve(
                buffer, layer, row, unit == 1 ? pixels : region.columns, [&](int64_t y) {
                    return [=, this, out_y = to + y * out.row_stride,
                            skip_y = added ? added + y * skip.row_stride : nullptr]<class W>(
                               int64_t at, int output, typename W::V value) STARLIGHT_LAMBDA {
                        const int count = conv.outputs - output;
                        value += W::load(parameters.bias + output);
                        if (skip_y)
                            value += load_as<W>(skip_y + at * skip.pixel_stride + output, count);
                        store_as<W>(out_y + at * out.pixel_stride + output, value, count);
                    };
                });
        }
    }
};

template <class T, class L, class Convolution>
size_t conv_forward_bytes(const Conv3x3 &conv, int workers)
{
    return workers * ConvForward<T, L, Convolution>::worker_bytes(conv, workers);
}

template <class T, class L, class Convolution>
void conv_forward(const Conv3x3 &conv, const ConstImage &x, const ConstImage &skip,
                  const void *packed, const Image &out, void *workspace, const Pool &pool)
{
    ConvForward<T, L, Convolution> job{
        conv, x, skip, packed, out, static_cast<char *>(workspace), pool.workers};
    pool.run(pool.context, job.work, &job);
}

} // namespace starlight::ops::STARLIGHT_ISA
