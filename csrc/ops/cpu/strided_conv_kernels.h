// 3x3 convolution of stride 2: rows are brought into blocked form, then convolved directly. The
// gradient of the input is taken by parity: an input pixel sees one, two or four of the nine taps.
#pragma once

#include "../strided_conv.h"
#include "direct.h"
#include "winograd.h"

#include <atomic>

namespace starlight::ops::STARLIGHT_ISA
{

template <class L> struct StridedChannels {
    int real_inputs, real_outputs;
    int inputs, outputs; // padded: inputs to whole vectors, outputs to halves

    explicit StridedChannels(const StridedConv &conv)
        : real_inputs(conv.inputs), real_outputs(conv.outputs), inputs(padded(conv.inputs, L::n)),
          outputs(padded(conv.outputs, L::n / 2))
    {
    }
    static int padded(int channels, int to) { return (channels + to - 1) / to * to; }
    int input_blocks() const { return inputs / L::n; }
    int output_blocks() const { return padded(outputs, L::n) / L::n; }
};

template <class L, class Convolution> struct StridedParameters {
    using Real = typename L::Real;
    Real *weights, *bias;

    StridedParameters(Arena &arena, const StridedChannels<L> &channels)
        : weights(
              arena.take<Real>(int64_t{Convolution::taps} * channels.inputs * channels.outputs)),
          bias(arena.take<Real>(channels.outputs))
    {
    }
};

template <class L, class Convolution> size_t strided_packed_bytes(const StridedConv &conv)
{
    Arena arena(nullptr);
    StridedParameters<L, Convolution>(arena, StridedChannels<L>(conv));
    return arena.bytes();
}

template <class L, class Convolution>
void strided_pack(const StridedConv &conv, const void *weight, const void *bias, void *packed)
{
    using Real = typename L::Real;
    const StridedChannels<L> channels(conv);
    Arena arena(packed);
    const StridedParameters<L, Convolution> to(arena, channels);
    const Real *from = static_cast<const Real *>(weight);
    Convolution::pack(to.weights, channels.inputs, channels.outputs,
                      [&](int o, int c, int ky, int kx) {
                          if (o >= conv.outputs || c >= conv.inputs) return Real(0);
                          return from[((int64_t{o} * conv.inputs + c) * 3 + ky) * 3 + kx];
                      });
    for (int o = 0; o < channels.outputs; o++)
        to.bias[o] = o < conv.outputs ? static_cast<const Real *>(bias)[o] : Real(0);
}

// Rows of the output in about four parts for each worker.
struct RowParts {
    int64_t rows, parts; // of one image

    RowParts(const StridedConv &conv, int workers)
        : rows(conv.out_height()),
          parts(std::clamp<int64_t>((4 * workers - 1) / std::max<int64_t>(conv.images, 1) + 1, 1,
                                    std::max<int64_t>(rows / 4, 1)))
    {
    }
    Span operator[](int64_t part) const { return {rows * part / parts, rows * (part + 1) / parts}; }
};

template <class T, class L> struct StridedForward {
    using Real = typename L::Real;
    StridedConv conv;
    ConstImage x;
    const void *packed;
    Image out;
    char *workspace;
    int workers;
    StridedChannels<L> channels{conv};
    RowParts parts{conv, workers};
    std::atomic<int64_t> next_part = 0;

    static GrowthBuffer<L> buffer(Arena &arena, const StridedConv &conv)
    {
        return {arena,       3,         conv.width + 3, StridedChannels<L>(conv).input_blocks(),
                conv.height, conv.width};
    }
    static int64_t worker_bytes(const StridedConv &conv)
    {
        Arena arena(nullptr);
        buffer(arena, conv);
        return arena.bytes();
    }

    static void work(void *job, int index)
    {
        auto &self = *static_cast<StridedForward *>(job);
        Arena packed(const_cast<void *>(self.packed));
        const StridedParameters<L, Direct<L>> parameters(packed, self.channels);
        Arena arena(self.workspace + index * worker_bytes(self.conv));
        GrowthBuffer<L> rows = buffer(arena, self.conv);
        for (;;) {
            const int64_t part = self.next_part.fetch_add(1, std::memory_order_relaxed);
            if (part >= self.conv.images * self.parts.parts) return;
            self.do_rows(part / self.parts.parts, self.parts[part % self.parts.parts], parameters,
                         rows);
        }
    }

    // While a row is computed, the two that come next are called near, evenly spread: each vector
    // of results takes one block of channels of one pixel in both rows.
    STARLIGHT_INLINE void prefetch(const T *rows, int64_t i, int output) const
    {
        const int channel = output / (2 * L::n) * L::n;
        if (!rows || channel >= conv.inputs) return;
        const T *const at = rows + (2 * i + output / L::n % 2) * x.pixel_stride + channel;
        __builtin_prefetch(at, 0, 2);
        __builtin_prefetch(at + x.row_stride, 0, 2);
    }

    void do_rows(int64_t image, Span span, const StridedParameters<L, Direct<L>> &parameters,
                 GrowthBuffer<L> &rows) const
    {
        const Layer<L> layer{channels.inputs, channels.outputs, parameters.weights};
        const T *const from = static_cast<const T *>(x.data) + image * x.image_stride;
        T *const to = static_cast<T *>(out.data) + image * out.image_stride;
        rows.reset(span.begin * 2 - 1, -1);
        int64_t next = std::max<int64_t>(span.begin * 2 - 1, 0);
        for (int64_t y = span.begin; y < span.end; y++) {
            for (; next < std::min(2 * y + 2, conv.height); next++)
                rows.fill(rows.row(next), 0, {0, conv.width}, from + next * x.row_stride,
                          x.pixel_stride, conv.inputs);
            const auto row = [&](int ky) -> const Real * {
                return rows.cell(rows.row(2 * y + ky - 1), 0, -1);
            };
            T *const out_y = to + y * out.row_stride;
            const T *const ahead = next + 1 < conv.height ? from + next * x.row_stride : nullptr;
            direct_row<L, 2>(
                {row(0), row(1), row(2)}, rows.block_stride(), layer, conv.out_width(),
                [&]<class W>(int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                    prefetch(ahead, i, output);
                    value += W::load(parameters.bias + output);
                    store_as<W>(out_y + i * out.pixel_stride + output,
                                conv.relu ? W::relu(value) : value, conv.outputs - output);
                });
        }
    }
};

template <class T, class L> size_t strided_forward_bytes(const StridedConv &conv, int workers)
{
    return workers * StridedForward<T, L>::worker_bytes(conv);
}

template <class T, class L>
void strided_forward(const StridedConv &conv, const ConstImage &x, const void *packed,
                     const Image &out, void *workspace, const Pool &pool)
{
    StridedForward<T, L> job{conv, x, packed, out, static_cast<char *>(workspace), pool.workers};
    pool.run(pool.context, job.work, &job);
}

template <class T, class L> struct StridedBackward {
    using Real = typename L::Real;
    StridedConv conv;
    ConstImage x, out, grad_out;
    Image grad_x;
    const void *weight;
    Real *grad_weight, *grad_bias;
    char *workspace;
    int workers;
    StridedChannels<L> channels{conv};
    RowParts parts{conv, workers};

    // Kernels of the input's parities, [even, odd] rows x [even, odd] columns, transposed.
    struct Kernels {
        Real *weights[2][2];
        int64_t bytes;

        Kernels(Arena arena, const StridedChannels<L> &channels)
        {
            for (int py = 0; py < 2; py++)
                for (int px = 0; px < 2; px++)
                    weights[py][px] = arena.take<Real>(int64_t{(py + 1) * (px + 1)} *
                                                       depth(channels) * outputs(channels));
            bytes = arena.bytes();
        }
        static int depth(const StridedChannels<L> &c) { return c.output_blocks() * L::n; }
        static int outputs(const StridedChannels<L> &c)
        {
            return c.padded(c.real_inputs, L::n / 2);
        }

        void pack(const StridedConv &conv, const StridedChannels<L> &channels,
                  const Real *from) const
        {
            for (int py = 0; py < 2; py++)
                for (int px = 0; px < 2; px++)
                    for_each_weight<L>(
                        (py + 1) * (px + 1) * depth(channels), outputs(channels),
                        [&](int c, int k, int64_t index) {
                            const int tap = k / depth(channels), o = k % depth(channels);
                            // An odd pixel's first gradient comes by the kernel's last tap.
                            const int ky = py ? 2 - 2 * (tap / (px + 1)) : 1;
                            const int kx = px ? 2 - 2 * (tap % (px + 1)) : 1;
                            weights[py][px][index] =
                                c < conv.inputs && o < conv.outputs
                                    ? from[(int64_t{o} * conv.inputs + c) * 9 + ky * 3 + kx]
                                    : Real(0);
                        });
        }
    };

    struct Worker {
        Real *sums;   // [tap][output][input]
        double *bias; // [output]
        GrowthBuffer<L> inputs, gradients;
        int64_t sum_bytes, bytes;

        Worker(Arena arena, const StridedConv &conv) : Worker(arena, conv, StridedChannels<L>(conv))
        {
        }
        Worker(Arena &arena, const StridedConv &conv, const StridedChannels<L> &channels)
            : sums(arena.take<Real>(int64_t{9} * channels.outputs * channels.inputs)),
              bias(arena.take<double>(channels.output_blocks() * L::n)),
              inputs(arena, 3, conv.width + 3, channels.input_blocks(), conv.height, conv.width),
              gradients(arena, 2, conv.out_width() + 1, channels.output_blocks(), conv.out_height(),
                        conv.out_width()),
              sum_bytes(reinterpret_cast<char *>(inputs.data) - reinterpret_cast<char *>(sums)),
              bytes(arena.bytes())
        {
        }
    };

    Kernels kernels() const { return Kernels(Arena(workspace), channels); }
    Worker worker(int index) const
    {
        const int64_t bytes = Worker(Arena(nullptr), conv).bytes;
        return Worker(Arena(workspace + kernels().bytes + index * bytes), conv);
    }

    static void work(void *job, int index)
    {
        const auto &self = *static_cast<StridedBackward *>(job);
        const Kernels kernels = self.kernels();
        Worker worker = self.worker(index);
        std::memset(worker.sums, 0, worker.sum_bytes);
        const int64_t count = self.conv.images * self.parts.parts;
        for (int64_t i = count * index / self.workers; i < count * (index + 1) / self.workers; i++)
            self.do_rows(i / self.parts.parts, self.parts[i % self.parts.parts], kernels, worker);
    }

    // Row y of the output's gradient, through the ReLU.
    void fill_gradient(const GrowthBuffer<L> &gradients, int64_t image, int64_t y) const
    {
        if (y >= conv.out_height()) return;
        const Span pixels{0, conv.out_width()};
        Real *const row = gradients.row(y);
        gradients.fill(row, 0, pixels,
                       static_cast<const T *>(grad_out.data) + image * grad_out.image_stride +
                           y * grad_out.row_stride,
                       grad_out.pixel_stride, conv.outputs);
        if (!conv.relu) return;
        const T *const out_y =
            static_cast<const T *>(out.data) + image * out.image_stride + y * out.row_stride;
        for (int c = 0; c < conv.outputs; c += L::n)
            for (int64_t i = 0; i < pixels.end; i++) {
                Real *const d = gradients.cell(row, c, i);
                const typename L::V value =
                    load_as<L>(out_y + i * out.pixel_stride + c, conv.outputs - c);
                L::store(d, value > 0 ? L::load(d) : typename L::V{});
            }
    }

    void do_rows(int64_t image, Span span, const Kernels &kernels, Worker &worker) const
    {
        const T *const from = static_cast<const T *>(x.data) + image * x.image_stride;
        GrowthBuffer<L> &inputs = worker.inputs, &gradients = worker.gradients;
        inputs.reset(span.begin * 2 - 1, -1);
        gradients.reset(span.begin, 0);
        int64_t next = std::max<int64_t>(span.begin * 2 - 1, 0);
        fill_gradient(gradients, image, span.begin);
        for (int64_t y = span.begin; y < span.end; y++) {
            for (; next < std::min(2 * y + 2, conv.height); next++)
                inputs.fill(inputs.row(next), 0, {0, conv.width}, from + next * x.row_stride,
                            x.pixel_stride, conv.inputs);
            fill_gradient(gradients, image, y + 1);
            const Real *const d = gradients.row(y);
            for (int tap = 0; tap < 9; tap++)
                item_products<L>(d, gradients.block_stride(), 0, channels.outputs,
                                 inputs.cell(inputs.row(2 * y + tap / 3 - 1), 0, tap % 3 - 1),
                                 inputs.block_stride(), channels.inputs, conv.out_width(),
                                 worker.sums + int64_t{tap} * channels.outputs * channels.inputs,
                                 channels.inputs, 2 * L::n);
            for (int c = 0; c < conv.outputs; c += L::n) {
                typename L::V sum{};
                for (int64_t i = 0; i < conv.out_width(); i++)
                    sum += L::load(gradients.cell(gradients.row(y), c, i));
                for (int lane = 0; lane < L::n; lane++)
                    worker.bias[c + lane] += sum[lane];
            }
            grad_input_rows(image, y, kernels, gradients);
        }
    }

    // Rows 2y and 2y + 1.
    void grad_input_rows(int64_t image, int64_t y, const Kernels &kernels,
                         const GrowthBuffer<L> &gradients) const
    {
        const Real *const here = gradients.row(y), *const below = gradients.row(y + 1);
        const int depth = Kernels::depth(channels), outputs = Kernels::outputs(channels);
        const int64_t stride = gradients.block_stride();
        const int64_t even = (conv.width + 1) / 2, odd = conv.width / 2;
        T *const to = static_cast<T *>(grad_x.data) + image * grad_x.image_stride;
        const auto sink = [&](int py, int px) {
            return
                [=, this,
                 row = to + (2 * y + py) * grad_x.row_stride + px * grad_x.pixel_stride]<class W>(
                    int64_t i, int output, typename W::V value) STARLIGHT_LAMBDA {
                    store_as<W>(row + 2 * i * grad_x.pixel_stride + output, value,
                                conv.inputs - output);
                };
        };
        channel_products<L, 1>({here}, stride, even, depth, kernels.weights[0][0], outputs,
                               sink(0, 0));
        channel_products<L, 2>({here, here + L::n}, stride, odd, depth, kernels.weights[0][1],
                               outputs, sink(0, 1));
        if (2 * y + 1 >= conv.height) return;
        channel_products<L, 2>({here, below}, stride, even, depth, kernels.weights[1][0], outputs,
                               sink(1, 0));
        channel_products<L, 4>({here, here + L::n, below, below + L::n}, stride, odd, depth,
                               kernels.weights[1][1], outputs, sink(1, 1));
    }

    static void join(void *job, int index)
    {
        const auto &self = *static_cast<StridedBackward *>(job);
        const StridedConv &conv = self.conv;
        const StridedChannels<L> &channels = self.channels;
        const Worker first = self.worker(0);
        const auto total = [&](auto *sums, int64_t i) {
            double value = 0;
            for (int w = 0; w < self.workers; w++)
                value += reinterpret_cast<decltype(sums)>(reinterpret_cast<char *>(sums) +
                                                          w * first.bytes)[i];
            return value;
        };
        for (int o = conv.outputs * index / self.workers;
             o < conv.outputs * (index + 1) / self.workers; o++) {
            self.grad_bias[o] = Real(total(first.bias, o));
            for (int tap = 0; tap < 9; tap++)
                for (int c = 0; c < conv.inputs; c++)
                    self.grad_weight[(int64_t{o} * conv.inputs + c) * 9 + tap] = Real(total(
                        first.sums, (int64_t{tap} * channels.outputs + o) * channels.inputs + c));
        }
    }
};

template <class T, class L> size_t strided_backward_bytes(const StridedConv &conv, int workers)
{
    using Backward = StridedBackward<T, L>;
    return typename Backward::Kernels(Arena(nullptr), StridedChannels<L>(conv)).bytes +
           workers * typename Backward::Worker(Arena(nullptr), conv).bytes;
}

template <class T, class L>
void strided_backward(const StridedConv &conv, const ConstImage &x, const void *weight,
                      const ConstImage &out, const ConstImage &grad_out, const Image &grad_x,
                      void *grad_weight, void *grad_bias, void *workspace, const Pool &pool)
{
    using Real = typename L::Real;
    StridedBackward<T, L> job{conv,
                              x,
                              out,
                              grad_out,
                              grad_x,
                              weight,
                              static_cast<Real *>(grad_weight),
                              static_cast<Real *>(grad_bias),
                              static_cast<char *>(workspace),
                              pool.workers};
    job.kernels().pack(conv, job.channels, static_cast<const Real *>(weight));
    pool.run(pool.context, job.work, &job);
    pool.run(pool.context, job.join, &job);
}

} // namespace starlight::ops::STARLIGHT_ISA
