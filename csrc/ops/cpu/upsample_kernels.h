// The decoder's step up as matrix products of gathered pixels, and its gradients. A quarter of the
// output, [dy][dx], is an image of its own: every second pixel of every second row.
//
//   in  y    | a | b |          quarters 0 1 of a, b:  out 2y      | a0 | a1 | b0 | b1 |
//                               quarters 2 3 of a, b:  out 2y + 1  | a2 | a3 | b2 | b3 |
#pragma once

#include "../upsample.h"
#include "layered.h"

namespace starlight::ops::STARLIGHT_ISA
{

template <class D> struct UpsampleLayers {
    using T = typename D::T;
    using L = typename D::L;
    using Real = typename L::Real;
    using Word = typename D::Word;
    using Product = LayeredProduct<D>;

    Upsample up;
    Pixels pixels{up.images, up.height, up.width};

    static int64_t quarter_offset(const ConstImage &image, int quarter)
    {
        return quarter / 2 * image.row_stride + quarter % 2 * image.pixel_stride;
    }
    static ConstImage quarter_of(const ConstImage &image, int quarter)
    {
        return {static_cast<const T *>(image.data) + quarter_offset(image, quarter),
                image.image_stride, 2 * image.row_stride, 2 * image.pixel_stride};
    }
    Part part(const ConstImage &from, int channels) const
    {
        return {from, channels, 1, up.height, up.width};
    }
};

template <class D> struct UpsampleForward : UpsampleLayers<D> {
    using Base = UpsampleLayers<D>;
    using Base::pixels;
    using Base::up;
    using typename Base::L;
    using typename Base::Product;
    using typename Base::Real;
    using typename Base::T;
    using typename Base::Word;

    // Of a chunk at once: all quarters of them are written while their lines are near.
    static constexpr int64_t near = 2 * L::accumulators;

    Arena arena;
    Product product; // a group of outputs for every quarter
    Real *bias;      // [quarter][output]

    UpsampleForward(const Upsample &up, const void *packed)
        : Base{up}, arena(const_cast<void *>(packed)),
          product(arena, this->part({}, up.inputs), {}, up.outputs, 4),
          bias(arena.take<Real>(4 * up.outputs))
    {
    }

    void pack(const Real *weight, const Real *from_bias) const
    {
        const int64_t C = up.inputs;
        for (int i = 0; i < product.panels(); i++)
            product.pack(i, [&](int, int c, int, int quarter) {
                return std::pair(weight + quarter * C + c, 4 * C);
            });
        for (int quarter = 0; quarter < 4; quarter++)
            for (int o = 0; o < up.outputs; o++)
                bias[quarter * up.outputs + o] = from_bias[4 * o + quarter];
    }

    void run(const ConstImage &x, const ConstImage &skip, const Image &out, char *workspace,
             const Pool &pool) const
    {
        for_each_item(pool, product.chunks(pixels), [&](int64_t item, int worker) {
            const Span chunk = product.chunk_of(pixels, item);
            const int64_t stride = product.chunk() * L::n;
            Word *const own =
                reinterpret_cast<Word *>(workspace + worker * product.gathered_bytes());
            gather<D>(pixels, chunk, this->part(x, up.inputs), {}, own, stride);
            for (int64_t p = chunk.begin; p < chunk.end; p += near)
                multiply({p, std::min(p + near, chunk.end)}, own + (p - chunk.begin) * L::n, stride,
                         skip, out);
        });
    }

private:
    void multiply(Span span, const Word *gathered, int64_t stride, const ConstImage &skip,
                  const Image &out) const
    {
        const auto to = Product::offsets(pixels, span, Base::quarter_of(constant(out), 0));
        const auto from = Product::offsets(pixels, span, Base::quarter_of(skip, 0));
        const int padded = Product::padded(up.outputs);
        product.multiply_gathered(
            span.size(), gathered, stride,
            [&](int64_t i, int output, typename L::V sums) STARLIGHT_LAMBDA {
                const int quarter = output / padded, o = output % padded, count = up.outputs - o;
                sums += load_as<L>(bias + quarter * up.outputs + o, count);
                if (skip.data)
                    sums += D::widen(static_cast<const T *>(skip.data) +
                                         Base::quarter_offset(skip, quarter) + from[i] + o,
                                     count);
                D::write(static_cast<T *>(out.data) + Base::quarter_offset(constant(out), quarter) +
                             to[i] + o,
                         sums, count);
            });
    }
};

template <class D> struct UpsampleBackward : UpsampleLayers<D> {
    using Base = UpsampleLayers<D>;
    using Base::pixels;
    using Base::up;
    using typename Base::L;
    using typename Base::Product;
    using typename Base::Real;
    using typename Base::T;
    using typename Base::Word;
    using Sums = LayeredSums<D>;

    Arena arena;
    Product product; // of all quarters, its taps
    LayeredGradients<D> gradients;
    int64_t scratch_bytes;

    UpsampleBackward(const Upsample &up, void *workspace)
        : Base{up}, arena(workspace), product(arena, quarters(), {}, up.inputs),
          gradients(arena, pixels, int64_t{4} * up.inputs * up.outputs)
    {
        Arena sums(nullptr);
        Sums(sums, 1, up.outputs);
        scratch_bytes = std::max(product.gathered_bytes(), sums.bytes());
    }
    Part quarters() const
    {
        Part part = this->part({}, up.outputs);
        part.taps = 4;
        return part;
    }
    static size_t bytes(const Upsample &up, int workers)
    {
        const UpsampleBackward self(up, nullptr);
        return self.arena.bytes() + workers * self.scratch_bytes;
    }

    void run(const ConstImage &x, const Real *weight, const ConstImage &grad_out,
             const Image &grad_x, Real *grad_weight, Real *grad_bias, char *workspace,
             const Pool &pool) const
    {
        const int C = up.inputs, K = up.outputs;
        for_each_item(pool, product.panels(), [&](int64_t panel, int) {
            product.pack(int(panel), [&](int, int o, int quarter) {
                return std::pair(weight + (int64_t{4} * o + quarter) * C, int64_t{1});
            });
        });
        char *const scratch = workspace + arena.bytes();
        const int biases = tiles_of(K, L::n) * L::n;
        gradients.run(
            pool, grad_weight, 4 * tiles_of(C, Sums::tile),
            [&](int64_t item, Span span, Real *to, int worker) {
                const int quarter = int(item % 4), first = int(item / 4) * Sums::tile;
                Arena memory(scratch + worker * scratch_bytes);
                Sums(memory, 1, K)
                    .run(pixels, span,
                         this->part(channels_from(x, first, sizeof(T)),
                                    std::min(Sums::tile, C - first)),
                         this->part(Base::quarter_of(grad_out, quarter), K),
                         [&](int o, int c, int, Real sum) {
                             to[(int64_t{4} * o + quarter) * C + first + c] = sum;
                         });
            },
            4 * biases,
            [&](int lane) {
                const int quarter = lane / biases;
                bias_sums<D>(pixels, Base::quarter_of(grad_out, quarter), lane % biases, K,
                             grad_bias + quarter, 4);
            },
            product.chunks(pixels),
            [&](int64_t chunk, int worker) {
                grad_inputs(product.chunk_of(pixels, chunk), grad_out, grad_x,
                            reinterpret_cast<Word *>(scratch + worker * scratch_bytes));
            });
    }

private:
    void grad_inputs(Span span, const ConstImage &grad_out, const Image &grad_x, Word *own) const
    {
        const int64_t stride = product.chunk() * L::n;
        for (int quarter = 0; quarter < 4; quarter++) {
            const Part part = this->part(Base::quarter_of(grad_out, quarter), up.outputs);
            gather<D>(pixels, span, part, {}, own + quarter * Product::blocks_of(part) * stride,
                      stride);
        }
        const auto to = Product::offsets(pixels, span, constant(grad_x));
        product.multiply_gathered(
            span.size(), own, stride, [&](int64_t i, int c, typename L::V sums) STARLIGHT_LAMBDA {
                D::write(static_cast<T *>(grad_x.data) + to[i] + c, sums, up.inputs - c);
            });
    }
};

template <class D> size_t upsample_packed_bytes(const Upsample &up)
{
    return UpsampleForward<D>(up, nullptr).arena.bytes();
}

template <class D>
void upsample_pack(const Upsample &up, const void *weight, const void *bias, void *packed)
{
    using Real = typename D::L::Real;
    UpsampleForward<D>(up, packed)
        .pack(static_cast<const Real *>(weight), static_cast<const Real *>(bias));
}

template <class D> size_t upsample_forward_bytes(const Upsample &up, int workers)
{
    return workers * UpsampleForward<D>(up, nullptr).product.gathered_bytes();
}

template <class D>
void upsample_forward(const Upsample &up, const ConstImage &x, const ConstImage &skip,
                      const void *packed, const Image &out, void *workspace, const Pool &pool)
{
    UpsampleForward<D>(up, packed).run(x, skip, out, static_cast<char *>(workspace), pool);
}

template <class D> size_t upsample_backward_bytes(const Upsample &up, int workers)
{
    return UpsampleBackward<D>::bytes(up, workers);
}

template <class D>
void upsample_backward(const Upsample &up, const ConstImage &x, const void *weight,
                       const ConstImage &grad_out, const Image &grad_x, void *grad_weight,
                       void *grad_bias, void *workspace, const Pool &pool)
{
    using Real = typename D::L::Real;
    UpsampleBackward<D>(up, workspace)
        .run(x, static_cast<const Real *>(weight), grad_out, grad_x,
             static_cast<Real *>(grad_weight), static_cast<Real *>(grad_bias),
             static_cast<char *>(workspace), pool);
}

} // namespace starlight::ops::STARLIGHT_ISA
