// Forward of the dense block, and its packed parameters.
#pragma once

#include "dense_chain.h"
#include "direct.h"
#include "winograd.h"

namespace starlight::ops::STARLIGHT_ISA
{

// conv1, conv2, conv3, fuse, then the biases. The residual is added last: folded into fuse's
// diagonal it would double the rounding error.
template <class L, class Convolution> struct DenseForwardParameters {
    using Real = typename L::Real;
    Layer<L> layers[3];
    Real *weights[3], *fuse, *bias[4];

    DenseForwardParameters(Arena &arena, const DenseChannels<L> &channels)
    {
        for (int i = 0; i < 3; i++) {
            const int depth = channels.forward_depth(i + 1);
            weights[i] = arena.take<Real>(int64_t{Convolution::taps} * depth * channels.g);
            layers[i] = {depth, channels.g, weights[i]};
        }
        fuse = arena.take<Real>(int64_t{channels.forward_depth(4)} * channels.fuse_outputs);
        for (int i = 0; i < 3; i++)
            bias[i] = arena.take<Real>(channels.g);
        bias[3] = arena.take<Real>(channels.fuse_outputs);
    }

    void pack(const DenseChannels<L> &channels, const DenseBlockParameters &from) const
    {
        for (int i = 0; i < 4; i++) {
            const Real *weight = static_cast<const Real *>(from.weight[i]);
            const Real *biases = static_cast<const Real *>(from.bias[i]);
            const int real_outputs = i < 3 ? channels.real_g : channels.real_m;
            const int outputs = i < 3 ? channels.g : channels.fuse_outputs;
            const int inputs = channels.real_m + i * channels.real_g;
            if (i < 3) {
                Convolution::pack(weights[i], layers[i].depth, outputs,
                                  [&](int o, int k, int ky, int kx) {
                                      const int c = channels.real_forward(k);
                                      if (o >= real_outputs || c < 0) return Real(0);
                                      return weight[((int64_t{o} * inputs + c) * 3 + ky) * 3 + kx];
                                  });
            } else {
                for_each_weight<L>(
                    channels.forward_depth(4), outputs, [&](int o, int k, int64_t index) {
                        const int c = channels.real_forward(k);
                        fuse[index] =
                            o >= real_outputs || c < 0 ? Real(0) : weight[int64_t{o} * inputs + c];
                    });
            }
            for (int o = 0; o < outputs; o++)
                bias[i][o] = o < real_outputs ? biases[o] : Real(0);
        }
    }
};

template <class Convolution, class L> size_t dense_packed_bytes(const DenseBlock &block)
{
    Arena arena(nullptr);
    DenseForwardParameters<L, Convolution>(arena, DenseChannels<L>(block));
    return arena.bytes();
}

template <class Convolution, class L>
void dense_pack(const DenseBlock &block, const DenseBlockParameters &parameters, void *packed)
{
    Arena arena(packed);
    const DenseChannels<L> channels(block);
    DenseForwardParameters<L, Convolution>(arena, channels).pack(channels, parameters);
}

// Fills x, applies bias and ReLU; leaves members and fuses, each where there is an image for it.
template <class T, class L, class Convolution> struct DenseForwardPolicy {
    using Real = typename L::Real;
    const DenseChannels<L> &channels;
    const DenseForwardParameters<L, Convolution> &parameters;
    const GrowthBuffer<L> &buffer;
    const T *x;
    int64_t x_row, x_pixel;
    T *out;
    int64_t out_row, out_pixel;
    T *members;
    int64_t members_row, members_pixel;

    void source(int64_t y, Span pixels) const
    {
        buffer.fill(buffer.row(y), 0, pixels, x + y * x_row, x_pixel, channels.real_m);
    }

    auto sink(int conv, int64_t y) const
    {
        const int channel = channels.forward_depth(conv + 1);
        const Ahead ahead = ahead_of(conv, y);
        return [row = buffer.row(y), bias = parameters.bias[conv], channel, ahead,
                this]<class W>(int64_t at, int output, typename W::V value) STARLIGHT_LAMBDA {
            W::store(buffer.cell(row, channel + output, at),
                     W::relu(value + W::load(bias + output)));
            if constexpr (Convolution::unit == 1) {
                __builtin_prefetch(ahead.row + at * ahead.pixel + output);
                __builtin_prefetch(ahead.row + at * ahead.pixel + output + ahead.second);
            }
        };
    }

    // What of the images is touched next: fetched meanwhile, a line or two with each result.
    struct Ahead {
        const T *row;
        int64_t pixel;
        int second;
    };
    Ahead ahead_of(int conv, int64_t y) const
    {
        const int second = channels.real_m > channels.g ? channels.g : 0;
        if (conv == 2 && out) return {out + y * out_row, out_pixel, second};
        const int64_t next = std::min(y + Convolution::unit + 1, buffer.height - 1);
        return {x + next * x_row, x_pixel, second};
    }

    void finish(int64_t y, Span pixels) const
    {
        Real *const row = buffer.row(y);
        if (members) leave_members(row, pixels, members + y * members_row);
        if (!out) return;
        T *const out_y = out + y * out_row;
        channel_products<L, 1>(
            {buffer.cell(row, 0, pixels.begin)}, buffer.block_stride(), pixels.size(),
            channels.forward_depth(4), parameters.fuse, channels.fuse_outputs,
            [&]<class W>(int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                const int64_t at = pixels.begin + i;
                const typename W::V x_at = W::load(buffer.cell(row, output, at));
                store_as<W>(out_y + at * out_pixel + output,
                            x_at + (value + W::load(parameters.bias[3] + output)),
                            channels.real_m - output);
            });
    }

private:
    void leave_members(Real *row, Span pixels, T *to) const
    {
        for (int conv = 0; conv < 3; conv++, to += channels.real_g)
            for_each_lanes<L>(0, channels.g, [&]<class W>(int channel) {
                const int from = channels.forward_depth(conv + 1) + channel;
                const int count = channels.real_g - channel;
                if (count <= 0) return;
                for (int64_t x = pixels.begin; x < pixels.end; x++)
                    store_as<W>(to + x * members_pixel + channel,
                                W::load(buffer.cell(row, from, x)), count);
            });
    }
};

template <class T, class L, class Convolution> struct DenseForward {
    using Real = typename L::Real;
    static constexpr int64_t unit = Convolution::unit;
    static constexpr Halo halo{{2, 1, 0}};
    static constexpr int64_t margin = 3 * unit; // columns of x beyond the region

    DenseBlock block;
    ConstImage x;
    const void *packed;
    Image out, members;
    char *workspace;
    int workers;
    DenseChannels<L> channels{block};
    Regions regions = cut(block, channels, workers);
    std::atomic<int64_t> next_region = 0;

    // Columns so that the rolling rows stay near the core; rows so that the workers end together:
    // of the cuts whose time is near the least, the finest, for a worker that is held up.
    static Regions cut(const DenseBlock &block, const DenseChannels<L> &channels, int workers)
    {
        const int64_t columns = (channels.forward_depth(4) <= 256 ? 512 : 256) / unit;
        const int64_t units = std::max<int64_t>((block.height + unit - 1) / unit, 1);
        const auto cut_in = [&](int64_t parts) {
            return Regions(block, unit, (units + parts - 1) / parts, columns);
        };
        // In rows of units: a cut costs about two rows that both sides compute.
        const auto time = [&](const Regions &regions) {
            const int64_t rounds = (regions.count() + workers - 1) / workers;
            return rounds * (regions.most_rows() + (regions.row_parts > 1 ? 2 : 0));
        };
        const int64_t most = std::min<int64_t>(units, 4 * workers);
        int64_t least = time(cut_in(1)), parts = 1;
        for (int64_t i = 2; i <= most; i++)
            least = std::min(least, time(cut_in(i)));
        for (int64_t i = 1; i <= most; i++)
            if (time(cut_in(i)) * 32 <= least * 33) parts = i;
        return cut_in(parts);
    }

    struct Worker {
        GrowthBuffer<L> buffer;
        Convolution convolution;

        Worker(Arena arena, const DenseBlock &block, const DenseChannels<L> &channels,
               const Regions &regions)
            : Worker(arena, block, channels, regions.most_columns() * unit + 2 * margin)
        {
        }
        Worker(Arena &arena, const DenseBlock &block, const DenseChannels<L> &channels,
               int64_t columns)
            : buffer(arena, ring_rows<Convolution>, columns,
                     DenseChannels<L>::blocks(channels.forward_depth(4)), block.height,
                     block.width),
              convolution(arena, columns / unit, channels.blocks(channels.forward_depth(3)),
                          channels.blocks(channels.g)),
              bytes(arena.bytes())
        {
        }
        int64_t bytes;
    };

    static int64_t worker_bytes(const DenseBlock &block, int workers)
    {
        const DenseChannels<L> channels(block);
        return Worker(Arena(nullptr), block, channels, cut(block, channels, workers)).bytes;
    }

    static void work(void *job, int index)
    {
        auto &self = *static_cast<DenseForward *>(job);
        Arena packed(const_cast<void *>(self.packed));
        const DenseForwardParameters<L, Convolution> parameters(packed, self.channels);
        Worker worker(Arena(self.workspace + index * worker_bytes(self.block, self.workers)),
                      self.block, self.channels, self.regions);
        for (;;) {
            const int64_t item = self.next_region.fetch_add(1, std::memory_order_relaxed);
            if (item >= self.regions.count()) return;
            const Region region = self.regions[item];
            worker.buffer.reset(std::max<int64_t>((region.rows.begin - 3) * unit, 0),
                                region.columns.begin * unit - margin);
            DenseForwardPolicy<T, L, Convolution> policy{
                self.channels,
                parameters,
                worker.buffer,
                static_cast<const T *>(self.x.data) + region.image * self.x.image_stride,
                self.x.row_stride,
                self.x.pixel_stride,
                static_cast<T *>(self.out.data) + region.image * self.out.image_stride,
                self.out.row_stride,
                self.out.pixel_stride,
                static_cast<T *>(self.members.data) + region.image * self.members.image_stride,
                self.members.row_stride,
                self.members.pixel_stride};
            run_chain(worker.convolution, worker.buffer, parameters.layers, region, halo, policy);
        }
    }
};

template <class T, class L, class Convolution>
size_t dense_forward_bytes(const DenseBlock &block, int workers)
{
    return workers * DenseForward<T, L, Convolution>::worker_bytes(block, workers);
}

template <class T, class L, class Convolution>
void dense_forward(const DenseBlock &block, const ConstImage &x, const void *packed,
                   const Image &out, const Image &members, void *workspace, const Pool &pool)
{
    DenseForward<T, L, Convolution> job{
        block, x, packed, out, members, static_cast<char *>(workspace), pool.workers};
    pool.run(pool.context, job.work, &job);
}

} // namespace starlight::ops::STARLIGHT_ISA
