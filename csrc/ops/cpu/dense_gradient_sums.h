// Weight and bias gradients of the dense block, summed over one worker's regions.
#pragma once

#include "dense_chain.h"
#include "matmul.h"
#include "winograd.h"

namespace starlight::ops::STARLIGHT_ISA
{

// Layout of the sums: convolution i [tap][output][depth], fuse [output][depth], depths padded to
// whole vectors; taps are the 9 of the kernel or the 36 Winograd products.
template <class L, int TAPS> struct DenseGradientSums {
    using Real = typename L::Real;
    const DenseChannels<L> &channels;
    int depth[4], outputs[4], taps[4] = {TAPS, TAPS, TAPS, 1};
    Real *weight[4];
    double *bias; // of [d3, d2, d1, grad_out], as they lie in the buffer
    int bias_lanes;
    int64_t first_byte, bytes;

    DenseGradientSums(Arena &arena, const DenseChannels<L> &channels)
        : channels(channels), bias_lanes(channels.gradient_offset() + channels.m)
    {
        first_byte = arena.bytes();
        for (int i = 0; i < 4; i++) {
            depth[i] = channels.padded(channels.forward_depth(i + 1), L::n);
            outputs[i] = i < 3 ? channels.g : channels.fuse_outputs;
            weight[i] = arena.take<Real>(int64_t{taps[i]} * outputs[i] * depth[i]);
        }
        bias = arena.take<double>(bias_lanes);
        bytes = arena.bytes() - first_byte;
    }

    void clear() { std::memset(weight[0], 0, bytes); }

    // Where the gradient of output i, i.e. of out1, out2, out3 or out, begins in its buffer.
    int gradient_channel(int i) const
    {
        return i < 3 ? (2 - i) * channels.g : channels.gradient_offset();
    }
    Real *sums(int i, int tap) const { return weight[i] + int64_t{tap} * outputs[i] * depth[i]; }

    void add_row_of_fuse(const GrowthBuffer<L> &forward, const GrowthBuffer<L> &gradient, int64_t y,
                         Span pixels) const
    {
        item_products<L>(gradient.cell(gradient.row(y), gradient_channel(3), pixels.begin),
                         gradient.block_stride(), 0, outputs[3],
                         forward.cell(forward.row(y), 0, pixels.begin), forward.block_stride(),
                         depth[3], pixels.size(), weight[3], depth[3]);
        for (int c = 0; c < bias_lanes; c += L::n) {
            const Real *from = gradient.cell(gradient.row(y), c, pixels.begin);
            typename L::V sum{};
            for (int64_t i = 0; i < pixels.size(); i++)
                sum += L::load(from + i * L::n);
            for (int lane = 0; lane < L::n; lane++)
                bias[c + lane] += sum[lane];
        }
    }
};

// In the Winograd domain: products of transformed inputs and transformed gradients, summed over
// tiles; a quarter of the direct form's multiplications.
template <class L> struct WinogradGradient {
    static constexpr int taps = 36;
    static constexpr int64_t batch = 64; // tiles transformed before they are multiplied

    WinogradPlanes<L> inputs, gradients;

    WinogradGradient(Arena &arena, const DenseChannels<L> &channels)
        : inputs(arena, batch, channels.blocks(channels.forward_depth(3))),
          gradients(arena, batch, channels.blocks(3 * channels.g))
    {
    }

    void add(const GrowthBuffer<L> &forward, const GrowthBuffer<L> &gradient, const Region &region,
             const DenseGradientSums<L, taps> &sums)
    {
        int64_t held = 0;
        for (int64_t row = region.rows.begin; row < region.rows.end; row++)
            for (int64_t tile = region.columns.begin; tile < region.columns.end;) {
                const Span tiles{tile, std::min(region.columns.end, tile + batch - held)};
                winograd_read(forward, 0, sums.depth[2], row, tiles, inputs, held);
                read_gradients(gradient, 3 * sums.channels.g, row, tiles, held);
                held += tiles.size();
                tile = tiles.end;
                const bool last = row + 1 == region.rows.end && tile == region.columns.end;
                if (held < batch && !last) continue;
                for (int product = 0; product < 36; product++)
                    for (int i = 0; i < 3; i++) {
                        const int channel = sums.gradient_channel(i), lane = channel % L::n;
                        item_products<L>(gradients.at(product, channel - lane, 0),
                                         gradients.block_stride(), lane, sums.outputs[i],
                                         inputs.at(product, 0, 0), inputs.block_stride(),
                                         sums.depth[i], held, sums.sums(i, product), sums.depth[i]);
                    }
                held = 0;
            }
    }

    // Nine taps from 36 sums: the transpose of the kernel's transform.
    static void weights(const double *sums, double *kernel)
    {
        const auto &G = WinogradPoints::kernel;
        double down[3][6] = {};
        for (int ky = 0; ky < 3; ky++)
            for (int y = 0; y < 6; y++)
                for (int x = 0; x < 6; x++)
                    down[ky][x] += G[y][ky] * sums[y * 6 + x];
        for (int ky = 0; ky < 3; ky++)
            for (int kx = 0; kx < 3; kx++) {
                kernel[ky * 3 + kx] = 0;
                for (int x = 0; x < 6; x++)
                    kernel[ky * 3 + kx] += G[x][kx] * down[ky][x];
            }
    }

private:
    void read_gradients(const GrowthBuffer<L> &buffer, int channels, int64_t row, Span tiles,
                        int64_t to)
    {
        for_each_lanes<L>(0, channels, [&]<class W>(int channel) {
            const typename L::Real *rows[4];
            for (int i = 0; i < 4; i++)
                rows[i] = buffer.cell(buffer.row(row * 4 + i), channel, tiles.begin * 4);
            for (int64_t t = 0; t < tiles.size(); t++)
                winograd_gradient<L, W>(rows, t * 4 * L::n, gradients.at(0, channel, to + t),
                                        gradients.plane);
        });
    }
};

} // namespace starlight::ops::STARLIGHT_ISA
