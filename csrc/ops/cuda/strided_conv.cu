#include "strided_conv.h"

#include "plan.h"
#include "strided_conv.cuh"

namespace starlight::cuda
{

namespace
{

template <class T> class Strided
{
public:
    explicit Strided(const StridedConv &conv)
        : conv_(conv), in_(size_of(conv.images, conv.height, conv.width)),
          out_(size_of(conv.images, conv.out_height(), conv.out_width())),
          input_units_(static_cast<int>(ceil_divided(conv.inputs, UNIT<T>)))
    {
    }

    // Without `out.data` only counts.
    size_t forward(const ConstImage &x, const StridedConvParameters &parameters, const Image &out,
                   void *workspace, Stream stream) const
    {
        Arena arena(workspace);
        WeightPacker<T> packer;
        const int k = conv_.outputs;
        const PackedWeights packed =
            packer.add(arena, k, conv_tiles<T>(k),
                       {{{{parameters.weight, 0, conv_.inputs * 9, 9, 3, 1}},
                         conv_.inputs,
                         input_units_,
                         3,
                         3}});
        if (workspace == nullptr || out_.pixels() == 0) return arena.bytes();
        packer.launch_on(stream);
        ConvPlan plan{};
        plan.source[0] = source_of<T>(x, in_, conv_.inputs);
        plan.sources = 1;
        plan.full_window[0] = true;
        plan.packed[0] = packed.data;
        plan.group_bytes[0] = packed.group_bytes;
        plan.parameters = {parameters.bias, parameters.shift, nullptr, k};
        plan.relu = conv_.relu;
        plan.target = target_of<T>(out, out_, k);
        launch_conv<T, Geometry::strided>("strided_conv", plan, out_, k, stream);
        return arena.bytes();
    }

    size_t backward(const ConstImage &x, const StridedConvParameters &parameters,
                    const ConstImage &out, const ConstImage &grad_out, const Image &grad_x,
                    void *grad_weight, void *grad_bias, void *workspace, Stream stream) const
    {
        Arena arena(workspace);
        const int c = conv_.inputs, k = conv_.outputs;
        const Members<T> masked(arena, out_, conv_.relu ? 1 : 0, k);
        const Source gradient = conv_.relu ? masked.source(0, 1) : source_of<T>(grad_out, out_, k);
        const Source input = source_of<T>(x, in_, c);

        WeightPacker<T> packer;
        ConvPlan plan{};
        for (int parity = 0; parity < 4; parity++) {
            // An even row is the second tap of one output row; an odd one the third of that row
            // and the first of the next.
            const int y = parity / 2, x_parity = parity % 2;
            const PackedWeights packed =
                packer.add(arena, c, conv_tiles<T>(c),
                           {{{{parameters.weight, (1 + y) * 3 + 1 + x_parity, 9, c * 9, -6, -2}},
                             k,
                             gradient.member_units,
                             1 + y,
                             1 + x_parity}});
            plan.packed[parity] = packed.data;
            plan.group_bytes[parity] = packed.group_bytes;
        }
        WeightGradients<T, 2> weight_gradients(out_);
        weight_gradients.add(gradient, {input}, true, c, grad_weight, grad_bias);
        weight_gradients.reserve(arena, stream);
        if (workspace == nullptr) return arena.bytes();

        if (out_.pixels() == 0) {
            set_zero(grad_weight, sizeof(Accumulator<T>) * 9 * c * k, stream);
            set_zero(grad_bias, sizeof(Accumulator<T>) * k, stream);
            return arena.bytes();
        }
        packer.launch_on(stream);
        if (conv_.relu) {
            const int64_t units = out_.pixels() * masked.units();
            launch({"mask_gradient",
                    {grid_size(ceil_divided(units, MASK_THREADS), MOST_X, "mask_gradient")},
                    {MASK_THREADS},
                    0,
                    stream},
                   mask_gradient<T>,
                   MaskPlan{source_of<T>(grad_out, out_, k), source_of<T>(out, out_, k),
                            masked.target(0), units});
        }
        plan.source[0] = gradient;
        plan.sources = 1;
        plan.full_window[0] = true;
        plan.target = target_of<T>(grad_x, in_, c);
        launch_conv<T, Geometry::transposed>("strided_conv_grad_x", plan, out_, c, stream);
        weight_gradients.launch_on(stream);
        return arena.bytes();
    }

private:
    StridedConv conv_;
    Size in_, out_;
    int input_units_;
};

} // namespace

size_t strided_conv_forward_workspace_bytes(const StridedConv &conv)
{
    return with_type(conv.element,
                     [&]<class T>() { return Strided<T>(conv).forward({}, {}, {}, nullptr, {}); });
}

void strided_conv_forward(const StridedConv &conv, const ConstImage &x,
                          const StridedConvParameters &parameters, const Image &out,
                          void *workspace, void *stream)
{
    with_type(conv.element, [&]<class T>() {
        return Strided<T>(conv).forward(x, parameters, out, workspace, static_cast<Stream>(stream));
    });
}

size_t strided_conv_backward_workspace_bytes(const StridedConv &conv, void *stream)
{
    return with_float_type(conv.element, [&]<class T>() {
        return Strided<T>(conv).backward({}, {}, {}, {}, {}, nullptr, nullptr, nullptr,
                                         static_cast<Stream>(stream));
    });
}

void strided_conv_backward(const StridedConv &conv, const ConstImage &x,
                           const StridedConvParameters &parameters, const ConstImage &out,
                           const ConstImage &grad_out, const Image &grad_x, void *grad_weight,
                           void *grad_bias, void *workspace, void *stream)
{
    with_float_type(conv.element, [&]<class T>() {
        return Strided<T>(conv).backward(x, parameters, out, grad_out, grad_x, grad_weight,
                                         grad_bias, workspace, static_cast<Stream>(stream));
    });
}

} // namespace starlight::cuda
