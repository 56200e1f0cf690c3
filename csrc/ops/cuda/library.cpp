// The operators of torch on GPUs: memory, the device of x, its current stream. Compiled by the
// host's compiler; the kernels lie in dense_block.cu and strided_conv.cu. `winograd` is without
// effect here.
#include <tuple>

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../autocast.h"
#include "dense_block.h"
#include "strided_conv.h"

namespace
{

using namespace starlight;
using at::Tensor;
using at::TensorList;

cuda::Element element_of(const Tensor &x)
{
    switch (x.scalar_type()) {
    case at::kFloat: return cuda::Element::f32;
    case at::kHalf: return cuda::Element::f16;
    case at::kBFloat16: return cuda::Element::bf16;
    case at::kDouble: return cuda::Element::f64;
    default:
        TORCH_CHECK_TYPE(
            false, "operators: x must be float32, float16, bfloat16 or float64 on a GPU, got ",
            x.scalar_type());
    }
}

// The device of x is current for the call, and its current stream is where kernels go.
class Place
{
public:
    explicit Place(const Tensor &x)
        : guard_(x.device()), stream_(c10::cuda::getCurrentCUDAStream(x.device().index()))
    {
    }

    void *stream() const { return stream_.stream(); }

private:
    c10::cuda::CUDAGuard guard_;
    c10::cuda::CUDAStream stream_;
};

Tensor new_image(const Tensor &like, int64_t channels, int64_t height, int64_t width)
{
    return at::empty({like.size(0), channels, height, width},
                     like.options().memory_format(at::MemoryFormat::ChannelsLast));
}

// x with its channels side by side: itself where it can be read as it is.
Tensor readable(const Tensor &x)
{
    return ops::is_readable(x) ? x : x.contiguous(at::MemoryFormat::ChannelsLast);
}

// From torch's allocator, which knows streams and captured graphs.
Tensor workspace_of(const Tensor &x, size_t bytes)
{
    return at::empty({static_cast<int64_t>(bytes)},
                     x.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous));
}

int channels_of(int64_t count)
{
    TORCH_CHECK_VALUE(count <= 1 << 20, "operators: channels must be at most 2^20, got ", count);
    return static_cast<int>(count);
}

template <class Type> const Type *pointer(const Tensor &value)
{
    return static_cast<const Type *>(value.const_data_ptr());
}

// An integer parameter as the kernels read it.
Tensor integers(const Tensor &x, const Tensor &value, const char *name, at::IntArrayRef shape,
                at::ScalarType type)
{
    ops::check_beside(x, value, name, shape);
    TORCH_CHECK_TYPE(value.scalar_type() == type, "operators: ", name, " must be ", type, ", got ",
                     value.scalar_type());
    return value.contiguous();
}

// A dense block with its parameters held in the form that the kernels read.
struct BlockCall {
    cuda::DenseBlock block;
    std::vector<Tensor> weights, biases, shifts;
    cuda::DenseBlockParameters parameters{};

    // float parameters, or int8 weights, int32 biases and `given_shifts`
    BlockCall(const Tensor &x, TensorList given_weights, TensorList given_biases,
              cuda::Element element, TensorList given_shifts = {})
    {
        ops::check_image(x, "x", at::kCUDA);
        const bool integer = element == cuda::Element::i8;
        const int64_t g = ops::for_each_parameter(
            x, given_weights, given_biases,
            [&](int k, const char *name, const Tensor &value, at::IntArrayRef shape) {
                const bool weight = shape.size() == 4;
                Tensor held = integer
                                  ? integers(x, value, name, shape, weight ? at::kChar : at::kInt)
                                  : ops::parameter(x, value, name, shape);
                (weight ? parameters.weight : parameters.bias)[k] = held.const_data_ptr();
                if (integer && !weight) {
                    shifts.push_back(integers(x, given_shifts[k], "shifts", shape, at::kInt));
                    parameters.shift[k] = pointer<int32_t>(shifts.back());
                }
                (weight ? weights : biases).push_back(std::move(held));
            });
        block = {x.size(0), x.size(2), x.size(3), channels_of(x.size(1)), channels_of(g), element};
    }
};

Tensor run_block(const Tensor &x, const BlockCall &call, const Place &place)
{
    const Tensor input = readable(x);
    const Tensor out = new_image(x, x.size(1), x.size(2), x.size(3));
    const Tensor workspace =
        workspace_of(x, cuda::dense_block_forward_workspace_bytes(call.block, place.stream()));
    cuda::dense_block_forward(call.block, ops::view(input), call.parameters, ops::mutable_view(out),
                              workspace.mutable_data_ptr(), place.stream());
    return out;
}

Tensor dense_block_op(const Tensor &x, TensorList weights, TensorList biases, std::optional<bool>)
{
    const Place place(x);
    return run_block(x, BlockCall(x, weights, biases, element_of(x)), place);
}

Tensor dense_block_int8_op(const Tensor &x, TensorList weights, TensorList biases,
                           TensorList shifts, const Tensor &join_shifts)
{
    TORCH_CHECK_TYPE(x.scalar_type() == at::kChar, "operators: x must be int8, got ",
                     x.scalar_type());
    TORCH_CHECK_VALUE(shifts.size() == 4, "operators: shifts must be 4, got ", shifts.size());
    const Place place(x);
    BlockCall call(x, weights, biases, cuda::Element::i8, shifts);
    const Tensor joins = integers(x, join_shifts, "join_shifts", {x.size(1)}, at::kInt);
    call.parameters.join_shift = pointer<int32_t>(joins);
    return run_block(x, call, place);
}

std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>>
dense_block_backward_op(const Tensor &grad_out, const Tensor &x, TensorList weights,
                        TensorList biases, std::optional<bool>)
{
    const Place place(x);
    const BlockCall call(x, weights, biases, element_of(x));
    ops::check_like(grad_out, x, x.sizes(), "grad_out");
    const Tensor input = readable(x), gradient = readable(grad_out);
    const Tensor grad_x = new_image(x, x.size(1), x.size(2), x.size(3));
    std::vector<Tensor> grad_weights, grad_biases;
    cuda::DenseBlockGradients gradients;
    for (int k = 0; k < 4; k++) {
        grad_weights.push_back(at::empty_like(call.weights[k]));
        grad_biases.push_back(at::empty_like(call.biases[k]));
        gradients.weight[k] = grad_weights[k].mutable_data_ptr();
        gradients.bias[k] = grad_biases[k].mutable_data_ptr();
    }
    const Tensor workspace =
        workspace_of(x, cuda::dense_block_backward_workspace_bytes(call.block, place.stream()));
    cuda::dense_block_backward(call.block, ops::view(input), call.parameters, ops::view(gradient),
                               ops::mutable_view(grad_x), gradients, workspace.mutable_data_ptr(),
                               place.stream());
    for (int k = 0; k < 4; k++) {
        grad_weights[k] = grad_weights[k].to(weights[k].scalar_type());
        grad_biases[k] = grad_biases[k].to(biases[k].scalar_type());
    }
    return {grad_x, std::move(grad_weights), std::move(grad_biases)};
}

struct StridedCall {
    cuda::StridedConv conv;
    Tensor weight, bias, shifts;

    StridedCall(const Tensor &x, const Tensor &given_weight, const Tensor &given_bias, bool relu,
                cuda::Element element, const Tensor &given_shifts = {})
    {
        ops::check_image(x, "x", at::kCUDA);
        TORCH_CHECK_VALUE(given_weight.dim() == 4 && given_weight.size(0) >= 1,
                          "operators: weight must be [K, C, 3, 3] with K >= 1, got ",
                          given_weight.sizes());
        const int64_t inputs = x.size(1), outputs = given_weight.size(0);
        if (element == cuda::Element::i8) {
            weight = integers(x, given_weight, "weight", {outputs, inputs, 3, 3}, at::kChar);
            bias = integers(x, given_bias, "bias", {outputs}, at::kInt);
            shifts = integers(x, given_shifts, "shifts", {outputs}, at::kInt);
        } else {
            weight = ops::parameter(x, given_weight, "weight", {outputs, inputs, 3, 3});
            bias = ops::parameter(x, given_bias, "bias", {outputs});
        }
        conv = {x.size(0), x.size(2), x.size(3), channels_of(inputs), channels_of(outputs),
                relu,      element};
    }

    cuda::StridedConvParameters parameters() const
    {
        return {weight.const_data_ptr(), bias.const_data_ptr(),
                shifts.defined() ? pointer<int32_t>(shifts) : nullptr};
    }
};

Tensor run_strided(const Tensor &x, const StridedCall &call, const Place &place)
{
    const Tensor input = readable(x);
    const Tensor out =
        new_image(x, call.conv.outputs, call.conv.out_height(), call.conv.out_width());
    const Tensor workspace = workspace_of(x, cuda::strided_conv_forward_workspace_bytes(call.conv));
    cuda::strided_conv_forward(call.conv, ops::view(input), call.parameters(),
                               ops::mutable_view(out), workspace.mutable_data_ptr(),
                               place.stream());
    return out;
}

Tensor strided_conv_op(const Tensor &x, const Tensor &weight, const Tensor &bias, bool relu,
                       std::optional<bool>)
{
    const Place place(x);
    return run_strided(x, StridedCall(x, weight, bias, relu, element_of(x)), place);
}

Tensor strided_conv_int8_op(const Tensor &x, const Tensor &weight, const Tensor &bias,
                            const Tensor &shifts, bool relu)
{
    TORCH_CHECK_TYPE(x.scalar_type() == at::kChar, "operators: x must be int8, got ",
                     x.scalar_type());
    const Place place(x);
    return run_strided(x, StridedCall(x, weight, bias, relu, cuda::Element::i8, shifts), place);
}

// `out` is the forward's result where a ReLU followed, else nothing.
std::tuple<Tensor, Tensor, Tensor> strided_conv_backward_op(const Tensor &grad_out, const Tensor &x,
                                                            const Tensor &weight,
                                                            const Tensor &bias,
                                                            const std::optional<Tensor> &out)
{
    const Place place(x);
    const StridedCall call(x, weight, bias, out.has_value(), element_of(x));
    const int64_t shape[] = {x.size(0), call.conv.outputs, call.conv.out_height(),
                             call.conv.out_width()};
    ops::check_like(grad_out, x, shape, "grad_out");
    if (out) ops::check_like(*out, x, shape, "out");
    const Tensor input = readable(x), gradient = readable(grad_out);
    const Tensor result = out ? readable(*out) : gradient; // read only with a ReLU
    const Tensor grad_x = new_image(x, x.size(1), x.size(2), x.size(3));
    const Tensor grad_weight = at::empty_like(call.weight);
    const Tensor grad_bias = at::empty_like(call.bias);
    const Tensor workspace =
        workspace_of(x, cuda::strided_conv_backward_workspace_bytes(call.conv, place.stream()));
    cuda::strided_conv_backward(call.conv, ops::view(input), call.parameters(), ops::view(result),
                                ops::view(gradient), ops::mutable_view(grad_x),
                                grad_weight.mutable_data_ptr(), grad_bias.mutable_data_ptr(),
                                workspace.mutable_data_ptr(), place.stream());
    return {grad_x, grad_weight.to(weight.scalar_type()), grad_bias.to(bias.scalar_type())};
}

// ---- without a kernel of their own on GPUs: PyTorch's convolutions

// `convolve(weight, bias)` plus the skip; parameters in x's type. Nothing of nothing.
template <class Convolve>
Tensor plain(const Tensor &x, const Tensor &weight, const Tensor &bias,
             const std::optional<Tensor> &skip, at::IntArrayRef out_shape, const Convolve &convolve)
{
    if (skip) ops::check_like(*skip, x, out_shape, "skip");
    if (x.numel() == 0) return new_image(x, out_shape[1], out_shape[2], out_shape[3]);
    Tensor out = convolve(weight.to(x.scalar_type()), bias.to(x.scalar_type()));
    if (skip) out = out + *skip;
    return out.contiguous(at::MemoryFormat::ChannelsLast);
}

Tensor conv3x3_op(const Tensor &x, const Tensor &weight, const Tensor &bias,
                  const std::optional<Tensor> &skip, std::optional<bool>)
{
    ops::check_image(x, "x", at::kCUDA);
    const int64_t shape[] = {x.size(0), weight.size(0), x.size(2), x.size(3)};
    return plain(x, weight, bias, skip, shape, [&](const Tensor &w, const Tensor &b) {
        return at::conv2d(x, w, b, /*stride=*/1, /*padding=*/1);
    });
}

Tensor upsample_op(const Tensor &x, const Tensor &weight, const Tensor &bias,
                   const std::optional<Tensor> &skip)
{
    ops::check_image(x, "x", at::kCUDA);
    const int64_t shape[] = {x.size(0), weight.size(0) / 4, 2 * x.size(2), 2 * x.size(3)};
    return plain(x, weight, bias, skip, shape, [&](const Tensor &w, const Tensor &b) {
        return at::pixel_shuffle(at::conv2d(x, w, b), 2);
    });
}

std::tuple<Tensor, Tensor, Tensor> upsample_backward_op(const Tensor &grad_out, const Tensor &x,
                                                        const Tensor &weight, const Tensor &bias)
{
    ops::check_image(x, "x", at::kCUDA);
    const int64_t shape[] = {x.size(0), weight.size(0) / 4, 2 * x.size(2), 2 * x.size(3)};
    ops::check_like(grad_out, x, shape, "grad_out");
    if (x.numel() == 0)
        return {new_image(x, x.size(1), x.size(2), x.size(3)), at::zeros_like(weight),
                at::zeros_like(bias)};
    const auto [grad_x, grad_weight, grad_bias] = at::convolution_backward(
        at::pixel_unshuffle(grad_out, 2), x, weight.to(x.scalar_type()), bias.sizes(),
        /*stride=*/1, /*padding=*/0, /*dilation=*/1, /*transposed=*/false, /*output_padding=*/0,
        /*groups=*/1, {true, true, true});
    return {grad_x.contiguous(at::MemoryFormat::ChannelsLast), grad_weight.to(weight.scalar_type()),
            grad_bias.to(bias.scalar_type())};
}

} // namespace

TORCH_LIBRARY_IMPL(starlight, AutocastCUDA, library)
{
    library.impl("dense_block", ops::dense_block_autocast<at::kCUDA>);
    library.impl("strided_conv", ops::strided_conv_autocast<at::kCUDA>);
    library.impl("conv3x3", ops::conv3x3_autocast<at::kCUDA>);
    library.impl("upsample", ops::upsample_autocast<at::kCUDA>);
}

TORCH_LIBRARY_IMPL(starlight, CUDA, library)
{
    library.impl("dense_block", dense_block_op);
    library.impl("dense_block_backward", dense_block_backward_op);
    library.impl("dense_block_int8", dense_block_int8_op);
    library.impl("strided_conv", strided_conv_op);
    library.impl("strided_conv_backward", strided_conv_backward_op);
    library.impl("strided_conv_int8", strided_conv_int8_op);
    library.impl("conv3x3", conv3x3_op);
    library.impl("upsample", upsample_op);
    library.impl("upsample_backward", upsample_backward_op);
}
