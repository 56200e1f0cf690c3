// The single convolutions as operators of torch: the encoder's step down, the decoder's step up,
// and the 3x3 of head, second and tail. See library.cpp.
#include <tuple>

#include <torch/library.h>

#include "autocast.h"
#include "conv3x3.h"
#include "cpu_tensors.h"
#include "strided_conv.h"
#include "upsample.h"

namespace
{

using namespace starlight::ops;

// With 81 products for 144 a pixel gains less than by F(4x4, 3x3). All the 81 of every weight are
// read for a few tiles: they should stay in the cache that the cores share.
bool strided_winograd_pays(const StridedConv &conv)
{
    const int64_t pixels = conv.images * conv.height * conv.width;
    return std::min(conv.inputs, conv.outputs) >= 16 &&
           int64_t{conv.inputs} * conv.outputs <= 64 * 128 &&
           pixels >= (c10::InferenceMode::is_enabled() ? 4096 : 8192) &&
           !strided_conv_by_dots(conv);
}

struct StridedCall {
    StridedConv conv;
    Tensor weight, bias;

    StridedCall(const Tensor &x, const Tensor &given_weight, const Tensor &given_bias, bool relu)
    {
        check_image(x, "x", at::kCPU);
        TORCH_CHECK_VALUE(given_weight.dim() == 4 && given_weight.size(0) >= 1,
                          "operators: weight must be [K, C, 3, 3] with K >= 1, got ",
                          given_weight.sizes());
        const int64_t inputs = x.size(1), outputs = given_weight.size(0);
        weight = parameter(x, given_weight, "weight", {outputs, inputs, 3, 3});
        bias = parameter(x, given_bias, "bias", {outputs});
        conv = {x.size(0),
                x.size(2),
                x.size(3),
                static_cast<int>(inputs),
                static_cast<int>(outputs),
                relu,
                element_of(x),
                isa(),
                false};
    }
};

Tensor strided_conv_op(const Tensor &x, const Tensor &weight, const Tensor &bias, bool relu,
                       std::optional<bool> winograd)
{
    StridedCall call(x, weight, bias, relu);
    call.conv.winograd = winograd.value_or(strided_winograd_pays(call.conv));
    const Tensor input = readable(x);
    const Tensor out =
        new_image(x, call.conv.outputs, call.conv.out_height(), call.conv.out_width());
    const Pool pool = torch_pool();
    // The same float32 parameters may serve both, packed differently.
    const char *const form = call.conv.winograd                ? "strided_conv winograd"
                             : strided_conv_by_dots(call.conv) ? "strided_conv dots"
                                                               : "strided_conv direct";
    const Tensor packed = packed_cache().find_or_pack(form, {call.weight, call.bias}, [&] {
        const Tensor memory = bytes(strided_conv_packed_bytes(call.conv));
        strided_conv_pack(call.conv, call.weight.const_data_ptr(), call.bias.const_data_ptr(),
                          memory.mutable_data_ptr());
        return memory;
    });
    const Tensor workspace = bytes(strided_conv_forward_workspace_bytes(call.conv, pool.workers));
    strided_conv_forward(call.conv, view(input), packed.const_data_ptr(), mutable_view(out),
                         workspace.mutable_data_ptr(), pool);
    return out;
}

// `out` is the forward's result where a ReLU followed, else nothing.
std::tuple<Tensor, Tensor, Tensor> strided_conv_backward_op(const Tensor &grad_out, const Tensor &x,
                                                            const Tensor &weight,
                                                            const Tensor &bias,
                                                            const std::optional<Tensor> &out)
{
    const StridedCall call(x, weight, bias, out.has_value());
    const int64_t shape[] = {x.size(0), call.conv.outputs, call.conv.out_height(),
                             call.conv.out_width()};
    check_like(grad_out, x, shape, "grad_out");
    if (out) check_like(*out, x, shape, "out");
    const Tensor input = readable(x), gradient = readable(grad_out);
    const Tensor result = out ? readable(*out) : gradient; // read only with a ReLU
    const Tensor grad_x = new_image(x, x.size(1), x.size(2), x.size(3));
    const Tensor grad_weight = new_parameter(call.weight), grad_bias = new_parameter(call.bias);
    const Pool pool = torch_pool();
    const Tensor workspace = bytes(strided_conv_backward_workspace_bytes(call.conv, pool.workers));
    strided_conv_backward(call.conv, view(input), call.weight.const_data_ptr(), view(result),
                          view(gradient), mutable_view(grad_x), grad_weight.mutable_data_ptr(),
                          grad_bias.mutable_data_ptr(), workspace.mutable_data_ptr(), pool);
    return {grad_x, grad_weight.to(weight.scalar_type()), grad_bias.to(bias.scalar_type())};
}

// The skip as the kernels read it: without data where there is none.
struct Skip {
    Tensor value;

    Skip(const std::optional<Tensor> &given, const Tensor &x, at::IntArrayRef shape)
    {
        if (!given) return;
        check_like(*given, x, shape, "skip");
        value = readable(*given);
    }
    ConstImage image() const { return value.defined() ? view(value) : ConstImage{}; }
};

Tensor conv3x3_op(const Tensor &x, const Tensor &given_weight, const Tensor &given_bias,
                  const std::optional<Tensor> &given_skip, std::optional<bool> winograd)
{
    check_image(x, "x", at::kCPU);
    TORCH_CHECK_VALUE(given_weight.dim() == 4 && given_weight.size(0) >= 1,
                      "operators: weight must be [K, C, 3, 3] with K >= 1, got ",
                      given_weight.sizes());
    const int64_t inputs = x.size(1), outputs = given_weight.size(0);
    const Tensor weight = parameter(x, given_weight, "weight", {outputs, inputs, 3, 3});
    const Tensor bias = parameter(x, given_bias, "bias", {outputs});
    const Skip skip(given_skip, x, {x.size(0), outputs, x.size(2), x.size(3)});
    const Conv3x3 conv{x.size(0),
                       x.size(2),
                       x.size(3),
                       static_cast<int>(inputs),
                       static_cast<int>(outputs),
                       element_of(x),
                       isa(),
                       winograd.value_or(winograd_pays(x) && std::min(inputs, outputs) >= 16)};
    const Tensor packed = packed_cache().find_or_pack(
        conv.winograd ? "conv3x3 winograd" : "conv3x3 direct", {weight, bias}, [&] {
            const Tensor memory = bytes(conv3x3_packed_bytes(conv));
            conv3x3_pack(conv, weight.const_data_ptr(), bias.const_data_ptr(),
                         memory.mutable_data_ptr());
            return memory;
        });
    const Tensor input = readable(x), out = new_image(x, outputs, x.size(2), x.size(3));
    const Pool pool = torch_pool();
    const Tensor workspace = bytes(conv3x3_forward_workspace_bytes(conv, pool.workers));
    conv3x3_forward(conv, view(input), skip.image(), packed.const_data_ptr(), mutable_view(out),
                    workspace.mutable_data_ptr(), pool);
    return out;
}

struct UpsampleCall {
    Upsample up;
    Tensor weight, bias;

    UpsampleCall(const Tensor &x, const Tensor &given_weight, const Tensor &given_bias)
    {
        check_image(x, "x", at::kCPU);
        TORCH_CHECK_VALUE(
            given_weight.dim() == 4 && given_weight.size(0) >= 4 && given_weight.size(0) % 4 == 0,
            "operators: weight must be [4 K, C, 1, 1] with K >= 1, got ", given_weight.sizes());
        const int64_t inputs = x.size(1), outputs = given_weight.size(0) / 4;
        weight = parameter(x, given_weight, "weight", {4 * outputs, inputs, 1, 1});
        bias = parameter(x, given_bias, "bias", {4 * outputs});
        up = {x.size(0),
              x.size(2),
              x.size(3),
              static_cast<int>(inputs),
              static_cast<int>(outputs),
              element_of(x),
              isa()};
    }
};

Tensor upsample_op(const Tensor &x, const Tensor &weight, const Tensor &bias,
                   const std::optional<Tensor> &given_skip)
{
    const UpsampleCall call(x, weight, bias);
    const Skip skip(given_skip, x, {x.size(0), call.up.outputs, 2 * x.size(2), 2 * x.size(3)});
    const char *const form = call.up.element == Element::bf16 ? "upsample bfloat16" : "upsample";
    const Tensor packed = packed_cache().find_or_pack(form, {call.weight, call.bias}, [&] {
        const Tensor memory = bytes(upsample_packed_bytes(call.up));
        upsample_pack(call.up, call.weight.const_data_ptr(), call.bias.const_data_ptr(),
                      memory.mutable_data_ptr());
        return memory;
    });
    const Tensor input = readable(x);
    const Tensor out = new_image(x, call.up.outputs, 2 * x.size(2), 2 * x.size(3));
    const Pool pool = torch_pool();
    const Tensor workspace = bytes(upsample_forward_workspace_bytes(call.up, pool.workers));
    upsample_forward(call.up, view(input), skip.image(), packed.const_data_ptr(), mutable_view(out),
                     workspace.mutable_data_ptr(), pool);
    return out;
}

std::tuple<Tensor, Tensor, Tensor> upsample_backward_op(const Tensor &grad_out, const Tensor &x,
                                                        const Tensor &weight, const Tensor &bias)
{
    const UpsampleCall call(x, weight, bias);
    check_like(grad_out, x, {x.size(0), call.up.outputs, 2 * x.size(2), 2 * x.size(3)}, "grad_out");
    const Tensor input = readable(x), gradient = readable(grad_out);
    const Tensor grad_x = new_image(x, x.size(1), x.size(2), x.size(3));
    const Tensor grad_weight = new_parameter(call.weight), grad_bias = new_parameter(call.bias);
    const Pool pool = torch_pool();
    const Tensor workspace = bytes(upsample_backward_workspace_bytes(call.up, pool.workers));
    upsample_backward(call.up, view(input), call.weight.const_data_ptr(), view(gradient),
                      mutable_view(grad_x), grad_weight.mutable_data_ptr(),
                      grad_bias.mutable_data_ptr(), workspace.mutable_data_ptr(), pool);
    return {grad_x, grad_weight.to(weight.scalar_type()), grad_bias.to(bias.scalar_type())};
}

} // namespace

TORCH_LIBRARY_FRAGMENT(starlight, library)
{
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    library.def("strided_conv(Tensor x, Tensor weight, Tensor bias, bool relu, bool? winograd) "
                "-> Tensor",
                tags);
    library.def("strided_conv_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor bias, "
                "Tensor? out) -> (Tensor, Tensor, Tensor)",
                tags);
    library.def("conv3x3(Tensor x, Tensor weight, Tensor bias, Tensor? skip, bool? winograd) "
                "-> Tensor",
                tags);
    library.def("upsample(Tensor x, Tensor weight, Tensor bias, Tensor? skip) -> Tensor", tags);
    library.def("upsample_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor bias) "
                "-> (Tensor, Tensor, Tensor)",
                tags);
}

TORCH_LIBRARY_IMPL(starlight, AutocastCPU, library)
{
    library.impl("strided_conv", strided_conv_autocast<at::kCPU>);
    library.impl("conv3x3", conv3x3_autocast<at::kCPU>);
    library.impl("upsample", upsample_autocast<at::kCPU>);
}

TORCH_LIBRARY_IMPL(starlight, CPU, library)
{
    library.impl("strided_conv", strided_conv_op);
    library.impl("strided_conv_backward", strided_conv_backward_op);
    library.impl("conv3x3", conv3x3_op);
    library.impl("upsample", upsample_op);
    library.impl("upsample_backward", upsample_backward_op);
}
