// The strided convolution as matrix products of gathered pixels. Forward: nine taps, two pixels
// apart. The gradient of the input: pixel (2y + py, 2x + px) sees one, two or four pixels of the
// output's gradient, which all four parities share, gathered in an order that gives each a run:
//
//   gathered            [below][here][right][below right]
//   py = 0, px = 0             [    ]
//   py = 0, px = 1             [           ]
//   py = 1, px = 0      [           ]
//   py = 1, px = 1      [                              ]
#pragma once

#include "../strided_conv.h"
#include "layered.h"

namespace starlight::ops::STARLIGHT_ISA
{

template <class D> struct StridedLayers {
    using T = typename D::T;
    using L = typename D::L;
    using Word = typename D::Word;
    using Real = typename L::Real;
    using Product = LayeredProduct<D>;

    StridedConv conv;
    Pixels pixels{conv.images, conv.out_height(), conv.out_width()};

    Part inputs(const ConstImage &x, int channel, int channels) const
    {
        return {channels_from(x, channel, sizeof(T)), channels, 9, conv.height, conv.width, 2};
    }
    Part output_part(const ConstImage &grad_out) const
    {
        return {grad_out, conv.outputs, 1, pixels.height, pixels.width};
    }
};

template <class D> struct StridedLayeredForward : StridedLayers<D> {
    using Base = StridedLayers<D>;
    using typename Base::L;
    using typename Base::Product;
    using typename Base::Real;
    using typename Base::T;

    Arena arena;
    Product product;
    Real *bias;

    StridedLayeredForward(const StridedConv &conv, const ConstImage &x, const void *packed)
        : Base{conv}, arena(const_cast<void *>(packed)),
          product(arena, this->inputs(x, 0, conv.inputs), {}, conv.outputs),
          bias(arena.take<Real>(conv.outputs))
    {
    }

    void pack(const Real *weight, const Real *from_bias) const
    {
        for (int i = 0; i < product.panels(); i++)
            product.pack(i, [&](int, int channel, int tap) {
                return std::pair(weight + channel * 9 + tap, int64_t{9} * this->conv.inputs);
            });
        std::copy_n(from_bias, this->conv.outputs, bias);
    }

    void run(const Image &out, char *workspace, const Pool &pool) const
    {
        product.run(pool, this->pixels, workspace, product.gathered_bytes(), [&](Span span) {
            return [=, this, to = Product::offsets(this->pixels, span, constant(out))](
                       int64_t i, int o, typename L::V sums) STARLIGHT_LAMBDA {
                const int count = this->conv.outputs - o;
                sums += load_as<L>(bias + o, count);
                D::write(static_cast<T *>(out.data) + to[i] + o,
                         this->conv.relu ? L::relu(sums) : sums, count);
            };
        });
    }
};

template <class D> struct StridedLayeredBackward : StridedLayers<D> {
    using Base = StridedLayers<D>;
    using Base::conv;
    using Base::output_part;
    using Base::pixels;
    using typename Base::L;
    using typename Base::Product;
    using typename Base::Real;
    using typename Base::T;
    using typename Base::Word;
    using Sums = LayeredSums<D>;

    static constexpr Offset gathered[4] = {{1, 0}, {0, 0}, {0, 1}, {1, 1}};
    static constexpr int first_gathered[4] = {1, 1, 0, 0}; // of parity 2 py + px

    Arena arena;
    Product products[4]; // of the parities
    T *masked;           // grad_out through the ReLU, where there is one
    LayeredGradients<D> gradients;
    int64_t scratch_bytes;

    StridedLayeredBackward(const StridedConv &conv, void *workspace)
        : Base{conv}, arena(workspace), products{product(0), product(1), product(2), product(3)},
          masked(arena.take<T>(conv.relu ? pixels.count() * conv.outputs : 0)),
          gradients(arena, pixels, int64_t{9} * conv.inputs * conv.outputs)
    {
        Arena sums(nullptr);
        Sums(sums, 9, conv.outputs);
        scratch_bytes = std::max(products[3].gathered_bytes(), sums.bytes());
    }

    Product product(int parity)
    {
        Part part = output_part({});
        part.taps = (parity / 2 + 1) * (parity % 2 + 1);
        return Product(arena, part, {}, conv.inputs);
    }
    static size_t bytes(const StridedConv &conv, int workers)
    {
        const StridedLayeredBackward self(conv, nullptr);
        return self.arena.bytes() + workers * self.scratch_bytes;
    }

    void pack(const Real *weight, const Pool &pool) const
    {
        const int panels = products[0].panels();
        for_each_item(pool, 4 * panels, [&](int64_t item, int) {
            const int parity = int(3 - item / panels); // the largest first
            products[parity].pack(int(item % panels), [&](int, int o, int tap) {
                const Offset at = gathered[first_gathered[parity] + tap];
                const int64_t ky = parity / 2 ? 2 - 2 * at.dy : 1;
                const int64_t kx = parity % 2 ? 2 - 2 * at.dx : 1;
                return std::pair(weight + int64_t{o} * conv.inputs * 9 + ky * 3 + kx, int64_t{9});
            });
        });
    }

    // grad_out where out is above zero, pixels side by side.
    ConstImage mask(const ConstImage &grad_out, const ConstImage &out, const Pool &pool) const
    {
        const int64_t row_elements = pixels.width * conv.outputs;
        for_each_item(pool, pixels.images * pixels.height, [&](int64_t row, int) {
            const int64_t image = row / pixels.height, y = row % pixels.height;
            const auto at = [&](const ConstImage &from, int64_t x) {
                return static_cast<const T *>(from.data) + image * from.image_stride +
                       y * from.row_stride + x * from.pixel_stride;
            };
            for (int64_t x = 0; x < pixels.width; x++)
                for (int o = 0; o < conv.outputs; o += L::n) {
                    const int lanes = conv.outputs - o;
                    const typename L::V d = D::widen(at(grad_out, x) + o, lanes);
                    D::write(masked + row * row_elements + x * conv.outputs + o,
                             D::widen(at(out, x) + o, lanes) > 0 ? d : typename L::V{}, lanes);
                }
        });
        return {masked, pixels.height * row_elements, row_elements, conv.outputs};
    }

    void run(const ConstImage &x, const ConstImage &grad_out, const Image &grad_x,
             Real *grad_weight, Real *grad_bias, char *workspace, const Pool &pool) const
    {
        char *const scratch = workspace + arena.bytes();
        gradients.run(
            pool, grad_weight, tiles_of(conv.inputs, Sums::tile),
            [&](int64_t item, Span span, Real *to, int worker) {
                const int first = int(item) * Sums::tile;
                Arena memory(scratch + worker * scratch_bytes);
                Sums(memory, 9, conv.outputs)
                    .run(pixels, span,
                         this->inputs(x, first, std::min(Sums::tile, conv.inputs - first)),
                         output_part(grad_out), [&](int o, int c, int tap, Real sum) {
                             to[(int64_t{o} * conv.inputs + first + c) * 9 + tap] = sum;
                         });
            },
            conv.outputs,
            [&](int o) { bias_sums<D>(pixels, grad_out, o, conv.outputs, grad_bias); },
            products[3].chunks(pixels),
            [&](int64_t item, int worker) {
                grad_inputs(products[3].chunk_of(pixels, item), grad_out, grad_x,
                            reinterpret_cast<Word *>(scratch + worker * scratch_bytes));
            });
    }

private:
    // The four pixels of the input that belong to each pixel of the span.
    void grad_inputs(Span span, const ConstImage &grad_out, const Image &grad_x, Word *own) const
    {
        const int64_t stride = products[3].chunk() * L::n;
        const Part part = output_part(grad_out);
        const int64_t tap_words = Product::blocks_of(part) * stride;
        for (int i = 0; i < 4; i++)
            gather<D>(pixels, span, part, gathered[i], own + i * tap_words, stride);
        for (int parity = 0; parity < 4; parity++) {
            const int py = parity / 2, px = parity % 2;
            typename Product::Offsets to;
            pixels.for_each_run(span, [&](int64_t image, int64_t y, Span columns, int64_t item) {
                for (int64_t x = columns.begin; x < columns.end; x++)
                    to[item++] = 2 * y + py < conv.height && 2 * x + px < conv.width
                                     ? image * grad_x.image_stride +
                                           (2 * y + py) * grad_x.row_stride +
                                           (2 * x + px) * grad_x.pixel_stride
                                     : -1;
            });
            products[parity].multiply_gathered(
                span.size(), own + first_gathered[parity] * tap_words, stride,
                [&](int64_t i, int c, typename L::V sums) STARLIGHT_LAMBDA {
                    if (to[i] >= 0)
                        D::write(static_cast<T *>(grad_x.data) + to[i] + c, sums, conv.inputs - c);
                });
        }
    }
};

template <class D> size_t strided_layered_packed_bytes(const StridedConv &conv)
{
    return StridedLayeredForward<D>(conv, {}, nullptr).arena.bytes();
}

template <class D>
void strided_layered_pack(const StridedConv &conv, const void *weight, const void *bias,
                          void *packed)
{
    using Real = typename D::L::Real;
    StridedLayeredForward<D>(conv, {}, packed)
        .pack(static_cast<const Real *>(weight), static_cast<const Real *>(bias));
}

template <class D> size_t strided_layered_forward_bytes(const StridedConv &conv, int workers)
{
    using Forward = StridedLayeredForward<D>;
    return workers * Forward(conv, {}, nullptr).product.gathered_bytes();
}

template <class D>
void strided_layered_forward(const StridedConv &conv, const ConstImage &x, const void *packed,
                             const Image &out, void *workspace, const Pool &pool)
{
    StridedLayeredForward<D>(conv, x, packed).run(out, static_cast<char *>(workspace), pool);
}

template <class D> size_t strided_layered_backward_bytes(const StridedConv &conv, int workers)
{
    return StridedLayeredBackward<D>::bytes(conv, workers);
}

template <class D>
void strided_layered_backward(const StridedConv &conv, const ConstImage &x, const void *weight,
                              const ConstImage &out, const ConstImage &grad_out,
                              const Image &grad_x, void *grad_weight, void *grad_bias,
                              void *workspace, const Pool &pool)
{
    using Real = typename D::L::Real;
    const StridedLayeredBackward<D> backward(conv, workspace);
    backward.pack(static_cast<const Real *>(weight), pool);
    backward.run(x, conv.relu ? backward.mask(grad_out, out, pool) : grad_out, grad_x,
                 static_cast<Real *>(grad_weight), static_cast<Real *>(grad_bias),
                 static_cast<char *>(workspace), pool);
}

} // namespace starlight::ops::STARLIGHT_ISA
