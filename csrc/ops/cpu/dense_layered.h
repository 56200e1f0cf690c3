// The dense block layer by layer over all images at once: for training where they are small. The
// forward pass leaves out1, out2, out3 to the backward pass, so nothing is computed twice; workers
// share the pixels of a layer, and the channels of the weight gradients, so nothing is joined.
#pragma once

#include "layered.h"

namespace starlight::ops::STARLIGHT_ISA
{

// Four products, packed and run in turn; each worker gathers into memory of its own.
template <class D> struct DenseLayers {
    using T = typename D::T;
    using L = typename D::L;
    using Real = typename L::Real;
    using Product = LayeredProduct<D>;

    int M, G;
    Pixels pixels;
    const DenseBlockParameters &parameters;

    DenseLayers(const DenseBlock &block, const DenseBlockParameters &parameters)
        : M(block.channels), G(block.growth), pixels{block.images, block.height, block.width},
          parameters(parameters)
    {
    }

    const Real *weight(int conv) const
    {
        return static_cast<const Real *>(parameters.weight[conv]);
    }
    int inputs(int conv) const { return M + conv * G; }
    Part part(const ConstImage &from, int channels, int taps) const
    {
        return {from, channels, taps, pixels.height, pixels.width};
    }

    template <class Weight>
    void pack(const Pool &pool, const Product (&products)[4], Weight weight) const
    {
        int first[5] = {};
        for (int i = 0; i < 4; i++)
            first[i + 1] = first[i] + products[i].panels();
        for_each_item(pool, first[4], [&](int64_t item, int) {
            const int i = item < first[1] ? 0 : item < first[2] ? 1 : item < first[3] ? 2 : 3;
            products[i].pack(int(item - first[i]), [&](int part, int channel, int tap) {
                return weight(i, part, channel, tap);
            });
        });
    }

    auto offsets(Span span, const ConstImage &image) const
    {
        return Product::offsets(pixels, span, image);
    }

    static int64_t scratch_bytes(const Product (&products)[4])
    {
        int64_t most = 0;
        for (const Product &product : products)
            most = std::max(most, product.gathered_bytes());
        return most;
    }
};

template <class D> struct LayeredForward : DenseLayers<D> {
    using Base = DenseLayers<D>;
    using Base::G;
    using Base::M;
    using Base::offsets;
    using Base::parameters;
    using Base::pixels;
    using typename Base::L;
    using typename Base::Product;
    using typename Base::Real;
    using typename Base::T;

    ConstImage x;
    Image members, out;
    Arena arena;
    Product products[4];

    LayeredForward(const DenseBlock &block, const ConstImage &x,
                   const DenseBlockParameters &parameters, const Image &members, const Image &out,
                   void *workspace)
        : Base(block, parameters), x(x), members(members), out(out), arena(workspace),
          products{product(0), product(1), product(2), product(3)}
    {
    }

    Product product(int conv)
    {
        const int taps = conv < 3 ? 9 : 1;
        return Product(arena, this->part(x, M, taps), this->part(constant(members), conv * G, taps),
                       conv < 3 ? G : M);
    }
    static size_t bytes(const DenseBlock &block, int workers)
    {
        const LayeredForward self(block, {}, {}, {}, {}, nullptr);
        return self.arena.bytes() + workers * Base::scratch_bytes(self.products);
    }

    // Without an output image only the members are made.
    void run(const Pool &pool, char *workspace) const
    {
        this->pack(pool, products, [&](int conv, int part, int channel, int tap) {
            const int inputs = this->inputs(conv), taps = conv < 3 ? 9 : 1;
            const int c = part ? M + channel : channel;
            return std::pair(this->weight(conv) + c * taps + tap, int64_t{inputs} * taps);
        });
        char *const scratch = workspace + arena.bytes();
        const int64_t bytes = Base::scratch_bytes(products);
        for (int conv = 0; conv < 3; conv++) {
            const Real *const bias = static_cast<const Real *>(parameters.bias[conv]);
            products[conv].run(pool, pixels, scratch, bytes, [&](Span span) {
                T *const to =
                    static_cast<T *>(members.data) + span.begin * members.pixel_stride + conv * G;
                return [=, this](int64_t i, int o, typename L::V sums) STARLIGHT_LAMBDA {
                    D::write(to + i * members.pixel_stride + o,
                             L::relu(sums + load_as<L>(bias + o, G - o)), G - o);
                };
            });
        }
        if (!out.data) return;
        const Real *const bias = static_cast<const Real *>(parameters.bias[3]);
        products[3].run(pool, pixels, scratch, bytes, [&](Span span) {
            return [=, this, from = offsets(span, x), to = offsets(span, constant(out))](
                       int64_t i, int o, typename L::V sums) STARLIGHT_LAMBDA {
                const int count = M - o;
                const T *const at = static_cast<const T *>(x.data) + from[i] + o;
                D::write(static_cast<T *>(out.data) + to[i] + o,
                         D::widen(at, count) + (sums + load_as<L>(bias + o, count)), count);
            };
        });
    }
};

// d3, d2, d1: the gradients of the convolutions' sums, each kept beside the others, in this order.
//   d3 = mask(fuse^T g),  d2 = mask(fuse^T g + conv3^T d3),  d1 = ...,  grad_x = g + ...
template <class D> struct LayeredBackward : DenseLayers<D> {
    using Base = DenseLayers<D>;
    using Base::G;
    using Base::M;
    using Base::offsets;
    using Base::parameters;
    using Base::pixels;
    using typename Base::L;
    using typename Base::Product;
    using typename Base::Real;
    using typename Base::T;
    using Sums = LayeredSums<D>;

    ConstImage x, members, grad_out;
    Image grad_x;
    Arena arena;
    Image d;
    Product products[4]; // to d3, d2, d1, grad_x
    int64_t scratch_bytes;

    LayeredBackward(const DenseBlock &block, const ConstImage &x,
                    const DenseBlockParameters &parameters, const ConstImage &members,
                    const ConstImage &grad_out, const Image &grad_x, void *workspace)
        : Base(block, parameters), x(x), members(members), grad_out(grad_out), grad_x(grad_x),
          arena(workspace), d{arena.take<T>(pixels.count() * 3 * G),
                              block.height * block.width * 3 * G, block.width * 3 * G, 3 * G},
          products{product(0), product(1), product(2), product(3)}
    {
        Arena sums(nullptr);
        Sums(sums, 9, G);
        Arena fuse(nullptr);
        Sums(fuse, 1, M);
        scratch_bytes = std::max({Base::scratch_bytes(products), sums.bytes(), fuse.bytes()});
    }

    Product product(int i)
    {
        return Product(arena, this->part(grad_out, M, 1), this->part(constant(d), i * G, 9),
                       i < 3 ? G : M);
    }
    static size_t bytes(const DenseBlock &block, int workers)
    {
        const LayeredBackward self(block, {}, {}, {}, {}, {}, nullptr);
        return self.arena.bytes() + workers * self.scratch_bytes;
    }

    void run(const Pool &pool, char *workspace, const DenseBlockGradients &gradients) const
    {
        this->pack(pool, products, [&](int i, int part, int channel, int tap) {
            const int first = i < 3 ? M + (2 - i) * G : 0; // among inputs: out3, out2, out1, x
            if (part == 0)
                return std::pair(this->weight(3) + int64_t{channel} * this->inputs(3) + first,
                                 int64_t{1});
            const int conv = 2 - channel / G, lane = channel % G;
            return std::pair(this->weight(conv) + (int64_t{lane} * this->inputs(conv) + first) * 9 +
                                 8 - tap,
                             int64_t{9});
        });
        char *const scratch = workspace + arena.bytes();
        for (int i = 0; i < 3; i++)
            products[i].run(pool, pixels, scratch, scratch_bytes, [&](Span span) {
                const T *const mask = static_cast<const T *>(members.data) +
                                      span.begin * members.pixel_stride + (2 - i) * G;
                T *const to = static_cast<T *>(d.data) + span.begin * d.pixel_stride + i * G;
                return [=, this](int64_t p, int o, typename L::V sums) STARLIGHT_LAMBDA {
                    const typename L::V out = D::widen(mask + p * members.pixel_stride + o, G - o);
                    D::write(to + p * d.pixel_stride + o, out > 0 ? sums : typename L::V{}, G - o);
                };
            });
        products[3].run(pool, pixels, scratch, scratch_bytes, [&](Span span) {
            return [=, this, from = offsets(span, grad_out), to = offsets(span, constant(grad_x))](
                       int64_t i, int o, typename L::V sums) STARLIGHT_LAMBDA {
                const int count = M - o;
                const T *const g = static_cast<const T *>(grad_out.data) + from[i] + o;
                D::write(static_cast<T *>(grad_x.data) + to[i] + o, D::widen(g, count) + sums,
                         count);
            };
        });
        sum_parameters(pool, scratch, gradients);
    }

private:
    // The convolutions' weights first, as they take longest; a tile of channels each.
    void sum_parameters(const Pool &pool, char *scratch, const DenseBlockGradients &gradients) const
    {
        int first[5] = {};
        for (int i = 0; i < 4; i++)
            first[i + 1] = first[i] + tiles_of(M, Sums::tile) + tiles_of(i * G, Sums::tile);
        const int biases = tiles_of(3 * G, L::n) + tiles_of(M, L::n);
        for_each_item(pool, first[4] + biases, [&](int64_t item, int worker) {
            if (item >= first[4]) return sum_bias(int(item - first[4]) * L::n, gradients);
            const int i = item < first[1] ? 0 : item < first[2] ? 1 : item < first[3] ? 2 : 3;
            const int tile = int(item - first[i]), of_x = tiles_of(M, Sums::tile);
            const bool in_x = tile < of_x;
            const int channel = (in_x ? tile : tile - of_x) * Sums::tile, taps = i < 3 ? 9 : 1;
            const int channels = std::min(Sums::tile, (in_x ? M : i * G) - channel);
            Arena memory(scratch + worker * scratch_bytes);
            Real *const to = static_cast<Real *>(gradients.weight[i]) +
                             int64_t{in_x ? channel : M + channel} * taps;
            const int64_t output = int64_t{this->inputs(i)} * taps;
            Sums(memory, taps, i < 3 ? G : M)
                .run(pixels, {0, pixels.count()},
                     this->part(channels_from(in_x ? x : members, channel, sizeof(T)), channels,
                                taps),
                     gradient(i), [&](int o, int c, int tap, Real sum) {
                         to[o * output + c * taps + tap] = sum;
                     });
        });
    }

    // What reaches convolution i, or fuse.
    Part gradient(int i) const
    {
        if (i == 3) return this->part(grad_out, M, 1);
        return this->part(channels_from(constant(d), (2 - i) * G, sizeof(T)), G, 1);
    }

    // Lanes of [d3, d2, d1], then of grad_out.
    void sum_bias(int lane, const DenseBlockGradients &gradients) const
    {
        const int padded = tiles_of(3 * G, L::n) * L::n;
        const bool of_d = lane < padded;
        const ConstImage from = of_d ? constant(d) : grad_out;
        const int channel = of_d ? lane : lane - padded;
        const int channels = std::min(L::n, (of_d ? 3 * G : M) - channel);
        channel_sums<D>(pixels, from, channel, channels, [&](int i, Real sum) {
            const int c = channel + i;
            Real *const to = static_cast<Real *>(gradients.bias[of_d ? 2 - c / G : 3]);
            to[of_d ? c % G : c] = sum;
        });
    }
};

template <class D> size_t dense_layered_forward_bytes(const DenseBlock &block, int workers)
{
    return LayeredForward<D>::bytes(block, workers);
}

template <class D>
void dense_layered_forward(const DenseBlock &block, const ConstImage &x,
                           const DenseBlockParameters &parameters, const Image &members,
                           const Image &out, void *workspace, const Pool &pool)
{
    LayeredForward<D>(block, x, parameters, members, out, workspace)
        .run(pool, static_cast<char *>(workspace));
}

template <class D> size_t dense_layered_backward_bytes(const DenseBlock &block, int workers)
{
    return LayeredBackward<D>::bytes(block, workers);
}

template <class D>
void dense_layered_backward(const DenseBlock &block, const ConstImage &x,
                            const DenseBlockParameters &parameters, const ConstImage &members,
                            const ConstImage &grad_out, const Image &grad_x,
                            const DenseBlockGradients &gradients, void *workspace, const Pool &pool)
{
    LayeredBackward<D>(block, x, parameters, members, grad_out, grad_x, workspace)
        .run(pool, static_cast<char *>(workspace), gradients);
}

} // namespace starlight::ops::STARLIGHT_ISA
