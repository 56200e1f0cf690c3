// Backward of the dense block. Each worker takes regions of the images; for each it reads x and the
// intermediates, runs the mirrored chain for the data gradients, and adds to its own sums of the
// weight gradients, which are joined at the end.
#pragma once

#include "dense_forward.h"
#include "dense_gradient_sums.h"

namespace starlight::ops::STARLIGHT_ISA
{

// Convolutions [d3] -> d2, [d3, d2] -> d1, [d3, d2, d1] -> grad_x with transposed kernels, and fuse
// transposed: grad_out -> [d3, d2, d1] and grad_out -> grad_x.
template <class L, class Convolution> struct DenseGradientParameters {
    using Real = typename L::Real;
    Layer<L> layers[3];
    Real *weights[3], *fuse_growth, *fuse_x;

    DenseGradientParameters(Arena &arena, const DenseChannels<L> &channels)
    {
        for (int i = 0; i < 3; i++) {
            const int depth = (i + 1) * channels.g;
            const int outputs = i < 2 ? channels.g : channels.fuse_outputs;
            weights[i] = arena.take<Real>(int64_t{Convolution::taps} * depth * outputs);
            layers[i] = {depth, outputs, weights[i]};
        }
        fuse_growth = arena.take<Real>(int64_t{3} * channels.g * channels.m);
        fuse_x = arena.take<Real>(int64_t{channels.fuse_outputs} * channels.m);
    }

    void pack(const DenseChannels<L> &channels, const DenseBlockParameters &from,
              const Pool &pool) const
    {
        for_each_item(pool, 4, [&](int64_t item, int) { // the long ones first
            if (item < 3)
                pack_layer(int(2 - item), channels, from);
            else
                pack_fuse(channels, from);
        });
    }

private:
    // Channels of d3, d2, d1 as they lie side by side: which convolution, which of its outputs.
    static int conv_of(const DenseChannels<L> &channels, int channel)
    {
        return 2 - channel / channels.g;
    }
    static int lane_of(const DenseChannels<L> &channels, int channel)
    {
        return channel % channels.g;
    }

    void pack_layer(int i, const DenseChannels<L> &channels, const DenseBlockParameters &from) const
    {
        const int M = channels.real_m, G = channels.real_g;
        const int first = i < 2 ? M + (1 - i) * G : 0; // among the inputs: out2, out1, x
        Convolution::pack(weights[i], layers[i].depth, layers[i].outputs,
                          [&](int o, int k, int ky, int kx) {
                              const int conv = conv_of(channels, k), lane = lane_of(channels, k);
                              if (o >= (i < 2 ? G : M) || lane >= G) return Real(0);
                              const Real *weight = static_cast<const Real *>(from.weight[conv]);
                              return weight[(int64_t{lane} * (M + conv * G) + first + o) * 9 +
                                            (2 - ky) * 3 + 2 - kx];
                          });
    }

    void pack_fuse(const DenseChannels<L> &channels, const DenseBlockParameters &from) const
    {
        const int M = channels.real_m, G = channels.real_g, inputs = M + 3 * G;
        const Real *fuse = static_cast<const Real *>(from.weight[3]);
        for_each_weight<L>(channels.m, 3 * channels.g, [&](int o, int k, int64_t index) {
            const int conv = conv_of(channels, o), lane = lane_of(channels, o);
            fuse_growth[index] =
                lane < G && k < M ? fuse[int64_t{k} * inputs + M + conv * G + lane] : Real(0);
        });
        for_each_weight<L>(channels.m, channels.fuse_outputs, [&](int o, int k, int64_t index) {
            fuse_x[index] = o < M && k < M ? fuse[int64_t{k} * inputs + o] : Real(0);
        });
    }
};

template <class T, class L, class Convolution> struct DenseGradientPolicy {
    using Real = typename L::Real;
    const DenseChannels<L> &channels;
    const DenseGradientParameters<L, Convolution> &parameters;
    const GrowthBuffer<L> &forward, &gradient, &tail; // tail: grad_x less fuse's part
    const T *grad_out;
    int64_t out_row, out_pixel;
    T *grad_x;
    int64_t x_row, x_pixel;

    void source(int64_t y, Span pixels) const
    {
        Real *const row = gradient.row(y);
        gradient.fill(row, channels.gradient_offset(), pixels, grad_out + y * out_row, out_pixel,
                      channels.real_m);
        channel_products<L, 1>(
            {gradient.cell(row, channels.gradient_offset(), pixels.begin)}, gradient.block_stride(),
            pixels.size(), channels.m, parameters.fuse_growth, 3 * channels.g,
            [&]<class W>(int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                W::store(gradient.cell(row, output, pixels.begin + i), value);
            });
        Real *const out3 = forward.row(y);
        for_each_lanes<L>(0, channels.g, [&]<class W>(int channel) {
            for (int64_t x = pixels.begin; x < pixels.end; x++) {
                Real *const d = gradient.cell(row, channel, x);
                W::store(d, masked<W>(W::load(d),
                                      forward.cell(out3, channels.forward_depth(3) + channel, x)));
            }
        });
    }

    auto sink(int conv, int64_t y) const
    {
        const int channel = (conv + 1) * channels.g;
        const int mask = channels.forward_depth(2 - conv);
        const GrowthBuffer<L> &to = conv < 2 ? gradient : tail;
        return [row = to.row(y), out = forward.row(y), conv, channel, mask,
                this]<class W>(int64_t x, int output, typename W::V value) STARLIGHT_LAMBDA {
            if (conv == 2) return W::store(tail.cell(row, output, x), value);
            Real *const d = gradient.cell(row, channel + output, x);
            W::store(d, masked<W>(W::load(d) + value, forward.cell(out, mask + output, x)));
        };
    }

    void finish(int64_t y, Span pixels) const
    {
        Real *const row = gradient.row(y), *const convolved = tail.row(y);
        T *const grad_x_y = grad_x + y * x_row;
        channel_products<L, 1>(
            {gradient.cell(row, channels.gradient_offset(), pixels.begin)}, gradient.block_stride(),
            pixels.size(), channels.m, parameters.fuse_x, channels.fuse_outputs,
            [&]<class W>(int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                const int64_t x = pixels.begin + i;
                const typename W::V residual =
                    W::load(gradient.cell(row, channels.gradient_offset() + output, x));
                store_as<W>(grad_x_y + x * x_pixel + output,
                            residual + (value + W::load(tail.cell(convolved, output, x))),
                            channels.real_m - output);
            });
    }

    template <class W>
    STARLIGHT_INLINE static typename W::V masked(typename W::V d, const Real *out)
    {
        return W::load(out) > 0 ? d : typename W::V{};
    }
};

template <class T, class L> struct DenseBackward {
    using Real = typename L::Real;
    using Convolution = Winograd<L>;
    using Gradient = WinogradGradient<L>;
    using Sums = DenseGradientSums<L, Gradient::taps>;
    static constexpr int64_t unit = Convolution::unit;

    // Of all that is held around a region, rounded up from what whole tiles reach.
    static constexpr Halo gradient_halo{{1, 1, 0}};
    static constexpr int64_t margin_rows = 5, margin_columns = 8;

    DenseBlock block;
    ConstImage x, members, grad_out;
    Image grad_x;
    DenseBlockGradients gradients;
    char *workspace;
    int workers;
    DenseChannels<L> channels{block};
    Regions regions = cut(block, channels, workers);

    static Regions cut(const DenseBlock &block, const DenseChannels<L> &channels, int workers)
    {
        const int64_t pixel_bytes =
            (channels.forward_depth(4) + channels.gradient_offset() + channels.m) *
            int64_t{sizeof(Real)};
        const int64_t side = 128 / unit;
        const int64_t rows = std::max<int64_t>(region_bytes / (pixel_bytes * 128), 32) / unit;
        const int64_t units = (block.height + unit - 1) / unit;
        const Regions most(block, unit, rows, side);
        if (most.count() == 0 || most.count() >= workers) return most;
        const int64_t parts = (workers + block.images - 1) / block.images;
        return Regions(block, unit, std::max<int64_t>((units + parts - 1) / parts, 16 / unit),
                       side);
    }
    static constexpr int64_t region_bytes = 4 << 20;

    struct Worker {
        Sums sums;
        GrowthBuffer<L> forward, gradient, tail;
        Arena scratch[2]; // the same memory twice: its users follow each other
        Convolution convolution;
        Gradient weight_gradient;
        int64_t bytes;

        Worker(Arena arena, const DenseBlock &block, const DenseChannels<L> &channels,
               const Regions &regions)
            : Worker(arena, block, channels, regions.most_rows() * unit,
                     regions.most_columns() * unit)
        {
        }
        Worker(Arena &arena, const DenseBlock &block, const DenseChannels<L> &channels,
               int64_t rows, int64_t columns)
            : sums(arena, channels),
              forward(arena, rows + 2 * margin_rows, columns + 2 * margin_columns,
                      channels.blocks(channels.forward_depth(4)), block.height, block.width),
              gradient(arena, rows + 2 * margin_rows, columns + 2 * margin_columns,
                       channels.blocks(channels.gradient_offset() + channels.m), block.height,
                       block.width),
              tail(arena, unit, columns + 2 * margin_columns, channels.blocks(channels.m),
                   block.height, block.width),
              scratch{arena, arena}, convolution(scratch[0], (columns + 2 * margin_columns) / unit,
                                                 channels.blocks(3 * channels.g),
                                                 channels.blocks(std::max(channels.g, channels.m))),
              weight_gradient(scratch[1], channels),
              bytes(std::max(scratch[0].bytes(), scratch[1].bytes()))
        {
        }
    };

    static size_t workspace_bytes(const DenseBlock &block, int workers)
    {
        const DenseChannels<L> channels(block);
        const Worker worker(Arena(nullptr), block, channels, cut(block, channels, workers));
        return packed_bytes(channels) + workers * worker.bytes;
    }

    // What all workers read: packed once.
    DenseGradientParameters<L, Convolution> packed() const
    {
        Arena arena(workspace);
        return {arena, channels};
    }
    static int64_t packed_bytes(const DenseChannels<L> &channels)
    {
        Arena arena(nullptr);
        DenseGradientParameters<L, Convolution>(arena, channels);
        return arena.bytes();
    }
    Worker worker(int index) const
    {
        const int64_t bytes = Worker(Arena(nullptr), block, channels, regions).bytes;
        return Worker(Arena(workspace + packed_bytes(channels) + index * bytes), block, channels,
                      regions);
    }

    static void work(void *job, int index)
    {
        const auto &self = *static_cast<DenseBackward *>(job);
        const auto packed = self.packed();
        Worker worker = self.worker(index);
        worker.sums.clear();
        const int64_t count = self.regions.count();
        for (int64_t i = count * index / self.workers; i < count * (index + 1) / self.workers; i++)
            self.do_region(self.regions[i], packed, worker);
    }

    void do_region(const Region &region, const DenseGradientParameters<L, Convolution> &packed,
                   Worker &worker) const
    {
        const int64_t row = region.rows.begin * unit, column = region.columns.begin * unit;
        worker.forward.reset(row - margin_rows, column - margin_columns);
        worker.gradient.reset(row - margin_rows, column - margin_columns);
        worker.tail.reset(row, column - margin_columns);
        read_forward(region, worker.forward);
        DenseGradientPolicy<T, L, Convolution> gradient{
            channels,
            packed,
            worker.forward,
            worker.gradient,
            worker.tail,
            static_cast<const T *>(grad_out.data) + region.image * grad_out.image_stride,
            grad_out.row_stride,
            grad_out.pixel_stride,
            static_cast<T *>(grad_x.data) + region.image * grad_x.image_stride,
            grad_x.row_stride,
            grad_x.pixel_stride};
        run_chain(worker.convolution, worker.gradient, packed.layers, region, gradient_halo,
                  gradient);
        worker.weight_gradient.add(worker.forward, worker.gradient, region, worker.sums);
        const Span pixels{column, std::min(region.columns.end * unit, block.width)};
        for (int64_t y = row; y < std::min(region.rows.end * unit, block.height); y++)
            worker.sums.add_row_of_fuse(worker.forward, worker.gradient, y, pixels);
    }

    // x and the members, as the forward pass had them.
    void read_forward(const Region &region, const GrowthBuffer<L> &to) const
    {
        const auto around = [](Span units, int64_t margin, int64_t limit) {
            return widened({units.begin * unit, units.end * unit}, margin, limit);
        };
        const Span rows = around(region.rows, margin_rows, block.height);
        const Span columns = around(region.columns, margin_columns, block.width);
        const auto at = [&](const ConstImage &image, int64_t y) {
            return static_cast<const T *>(image.data) + region.image * image.image_stride +
                   y * image.row_stride;
        };
        const int G = channels.real_g;
        for (int64_t y = rows.begin; y < rows.end; y++) {
            Real *const row = to.row(y);
            to.fill(row, 0, columns, at(x, y), x.pixel_stride, channels.real_m);
            const T *const out1 = at(members, y);
            if (G == channels.g) {
                to.fill(row, channels.m, columns, out1, members.pixel_stride, 3 * G);
                continue;
            }
            for (int64_t x = columns.begin; x < columns.end; x++)
                for (int c = 0; c < 3 * G; c++)
                    *to.cell(row, channels.m + c / G * channels.g + c % G, x) =
                        load_as<L>(out1 + x * members.pixel_stride + c, 1)[0];
        }
    }

    // Sums over workers, for the outputs that fall to this one.
    static void join(void *job, int index)
    {
        const auto &self = *static_cast<DenseBackward *>(job);
        const Sums sums = self.worker(0).sums;
        const int64_t bytes = Worker(Arena(nullptr), self.block, self.channels, self.regions).bytes;
        const auto total = [&](auto *first, int64_t i) {
            double value = 0;
            for (int w = 0; w < self.workers; w++)
                value += reinterpret_cast<decltype(first)>(reinterpret_cast<char *>(first) +
                                                           w * bytes)[i];
            return value;
        };
        for (int i = 0; i < 4; i++) {
            const int outputs = i < 3 ? self.channels.real_g : self.channels.real_m;
            const int inputs = self.channels.real_m + i * self.channels.real_g;
            const int taps = sums.taps[i];
            Real *const weight = static_cast<Real *>(self.gradients.weight[i]);
            for (int o = outputs * index / self.workers; o < outputs * (index + 1) / self.workers;
                 o++) {
                static_cast<Real *>(self.gradients.bias[i])[o] =
                    Real(total(sums.bias, sums.gradient_channel(i) + o));
                for (int k = 0; k < sums.depth[i]; k++) {
                    const int c = self.channels.real_forward(k);
                    if (c < 0 || c >= inputs) continue;
                    double tap[Gradient::taps];
                    for (int t = 0; t < taps; t++)
                        tap[t] = total(sums.sums(i, t), int64_t{o} * sums.depth[i] + k);
                    Real *const to = weight + int64_t{o} * inputs * (i < 3 ? 9 : 1) +
                                     int64_t{c} * (i < 3 ? 9 : 1);
                    if (i == 3) {
                        to[0] = Real(tap[0]);
                        continue;
                    }
                    double kernel[9];
                    Gradient::weights(tap, kernel);
                    for (int t = 0; t < 9; t++)
                        to[t] = Real(kernel[t]);
                }
            }
        }
    }
};

template <class T, class L> size_t dense_backward_bytes(const DenseBlock &block, int workers)
{
    return DenseBackward<T, L>::workspace_bytes(block, workers);
}

template <class T, class L>
void dense_backward(const DenseBlock &block, const ConstImage &x,
                    const DenseBlockParameters &parameters, const ConstImage &members,
                    const ConstImage &grad_out, const Image &grad_x,
                    const DenseBlockGradients &gradients, void *workspace, const Pool &pool)
{
    DenseBackward<T, L> job{
        block,       x, members, grad_out, grad_x, gradients, static_cast<char *>(workspace),
        pool.workers};
    job.packed().pack(job.channels, parameters, pool);
    pool.run(pool.context, job.work, &job);
    pool.run(pool.context, job.join, &job);
}

} // namespace starlight::ops::STARLIGHT_ISA
