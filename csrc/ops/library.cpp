// The dense block as an operator of torch on the CPU, the schemas of all devices, and what the
// library tells of itself; cuda/library.cpp is its like for GPUs. Gradients, shapes without data
// and autocast are registered in src/starlight/ops, and the rules that a caller must keep are told
// there; here stands what memory safety needs.
#include <tuple>

#include <torch/library.h>

#include "autocast.h"
#include "cpu_tensors.h"
#include "dense_block.h"

namespace
{

using namespace starlight::ops;

// A dense block with its parameters held in the form that the kernels read.
struct BlockCall {
    DenseBlock block;
    std::vector<Tensor> weights, biases;

    BlockCall(const Tensor &x, TensorList given_weights, TensorList given_biases,
              std::optional<bool> winograd)
    {
        check_image(x, "x", at::kCPU);
        const int64_t g = for_each_parameter(
            x, given_weights, given_biases,
            [&](int, const char *name, const Tensor &value, at::IntArrayRef shape) {
                (shape.size() == 4 ? weights : biases).push_back(parameter(x, value, name, shape));
            });
        block = {
            x.size(0),           x.size(2),     x.size(3), static_cast<int>(x.size(1)),
            static_cast<int>(g), element_of(x), isa(),     winograd.value_or(winograd_pays(x))};
    }

    // The form of a training step; a result alone always rolls.
    bool rolling() const { return block.winograd && block.element != Element::f64; }

    DenseBlockParameters parameters() const
    {
        DenseBlockParameters all;
        for (int k = 0; k < 4; k++) {
            all.weight[k] = weights[k].const_data_ptr();
            all.bias[k] = biases[k].const_data_ptr();
        }
        return all;
    }
};

// Rolling; of out and members those that are given.
void run_rolling(const BlockCall &call, const Tensor &input, const Image &out, const Image &members)
{
    const Pool pool = torch_pool();
    std::vector<Tensor> parameters = call.weights;
    parameters.insert(parameters.end(), call.biases.begin(), call.biases.end());
    const char *const form = call.block.winograd ? "dense_block winograd" : "dense_block direct";
    const Tensor packed = packed_cache().find_or_pack(form, parameters, [&] {
        const Tensor memory = bytes(dense_block_packed_bytes(call.block));
        dense_block_pack(call.block, call.parameters(), memory.mutable_data_ptr());
        return memory;
    });
    const Tensor workspace = bytes(dense_block_forward_workspace_bytes(call.block, pool.workers));
    dense_block_forward(call.block, view(input), packed.const_data_ptr(), out, members,
                        workspace.mutable_data_ptr(), pool);
}

Tensor dense_block_op(const Tensor &x, TensorList weights, TensorList biases,
                      std::optional<bool> winograd)
{
    const BlockCall call(x, weights, biases, winograd);
    const Tensor out = new_image(x, x.size(1), x.size(2), x.size(3));
    run_rolling(call, readable(x), mutable_view(out), {});
    return out;
}

// out1, out2, out3 of all images, side by side.
Tensor new_members(const BlockCall &call, const Tensor &x)
{
    return new_image(x, int64_t{3} * call.block.growth, x.size(2), x.size(3));
}

Image members_view(const BlockCall &call, const Tensor &members)
{
    const int64_t pixel = int64_t{3} * call.block.growth, row = call.block.width * pixel;
    return {members.mutable_data_ptr(), call.block.height * row, row, pixel};
}

// A training step's forward pass; without data in `out`, the members alone.
void run_with_members(const BlockCall &call, const Tensor &input, const Tensor &members,
                      const Image &out)
{
    const Image kept = members_view(call, members);
    if (call.rolling()) return run_rolling(call, input, out, kept);
    const Pool pool = torch_pool();
    const Tensor workspace = bytes(dense_layers_forward_workspace_bytes(call.block, pool.workers));
    dense_layers_forward(call.block, view(input), call.parameters(), kept, out,
                         workspace.mutable_data_ptr(), pool);
}

// The block's result, and the members that its backward pass reads.
std::tuple<Tensor, Tensor> dense_layers_op(const Tensor &x, TensorList weights, TensorList biases,
                                           bool winograd)
{
    const BlockCall call(x, weights, biases, winograd);
    const Tensor out = new_image(x, x.size(1), x.size(2), x.size(3));
    const Tensor members = new_members(call, x);
    run_with_members(call, readable(x), members, mutable_view(out));
    return {out, members};
}

// The gradients of x, of the weights and of the biases, each in the type of what it belongs to.
// Members are computed again where none are given.
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>>
block_gradients(const BlockCall &call, const Tensor &grad_out, const Tensor &x,
                std::optional<Tensor> members, TensorList weights, TensorList biases)
{
    check_like(grad_out, x, x.sizes(), "grad_out");
    const Tensor input = readable(x), gradient = readable(grad_out);
    const Tensor grad_x = new_image(x, x.size(1), x.size(2), x.size(3));
    std::vector<Tensor> grad_weights, grad_biases;
    DenseBlockGradients gradients;
    for (int k = 0; k < 4; k++) {
        grad_weights.push_back(new_parameter(call.weights[k]));
        grad_biases.push_back(new_parameter(call.biases[k]));
        gradients.weight[k] = grad_weights[k].mutable_data_ptr();
        gradients.bias[k] = grad_biases[k].mutable_data_ptr();
    }
    const Pool pool = torch_pool();
    if (!members) {
        members = new_members(call, x);
        run_with_members(call, input, *members, {});
    }
    const Image image = members_view(call, *members);
    const ConstImage kept{image.data, image.image_stride, image.row_stride, image.pixel_stride};
    auto *const workspace_bytes = call.rolling() ? dense_block_backward_workspace_bytes
                                                 : dense_layers_backward_workspace_bytes;
    auto *const backward = call.rolling() ? dense_block_backward : dense_layers_backward;
    const Tensor workspace = bytes(workspace_bytes(call.block, pool.workers));
    backward(call.block, view(input), call.parameters(), kept, view(gradient), mutable_view(grad_x),
             gradients, workspace.mutable_data_ptr(), pool);
    for (int k = 0; k < 4; k++) {
        grad_weights[k] = grad_weights[k].to(weights[k].scalar_type());
        grad_biases[k] = grad_biases[k].to(biases[k].scalar_type());
    }
    return {grad_x, std::move(grad_weights), std::move(grad_biases)};
}

std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>>
dense_block_backward_op(const Tensor &grad_out, const Tensor &x, TensorList weights,
                        TensorList biases, std::optional<bool> winograd)
{
    const BlockCall call(x, weights, biases, winograd);
    return block_gradients(call, grad_out, x, std::nullopt, weights, biases);
}

std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>>
dense_layers_backward_op(const Tensor &grad_out, const Tensor &x, const Tensor &members,
                         TensorList weights, TensorList biases, bool winograd)
{
    const BlockCall call(x, weights, biases, winograd);
    const int64_t shape[] = {x.size(0), int64_t{3} * call.block.growth, x.size(2), x.size(3)};
    check_like(members, x, shape, "members");
    return block_gradients(call, grad_out, x, members.contiguous(at::MemoryFormat::ChannelsLast),
                           weights, biases);
}

std::tuple<Tensor, Tensor> dense_layers_autocast(const Tensor &x, TensorList weights,
                                                 TensorList biases, bool winograd)
{
    return call_lowered<at::kCPU, std::tuple<Tensor, Tensor>, TensorList, TensorList, bool>(
        "starlight::dense_layers", x, weights, biases, winograd);
}

// Whether cuda/library.cpp is part of this library.
bool cuda_built()
{
#if defined(STARLIGHT_CUDA)
    return true;
#else
    return false;
#endif
}

} // namespace

TORCH_LIBRARY(starlight, library)
{
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    library.def(
        "dense_block(Tensor x, Tensor[] weights, Tensor[] biases, bool? winograd) -> Tensor", tags);
    library.def("dense_block_backward(Tensor grad_out, Tensor x, Tensor[] weights, "
                "Tensor[] biases, bool? winograd) -> (Tensor, Tensor[], Tensor[])",
                tags);
    library.def("dense_layers(Tensor x, Tensor[] weights, Tensor[] biases, bool winograd) "
                "-> (Tensor, Tensor)",
                tags);
    library.def("dense_layers_backward(Tensor grad_out, Tensor x, Tensor members, "
                "Tensor[] weights, Tensor[] biases, bool winograd) "
                "-> (Tensor, Tensor[], Tensor[])",
                tags);
    library.def("dense_block_int8(Tensor x, Tensor[] weights, Tensor[] biases, Tensor[] shifts, "
                "Tensor join_shifts) -> Tensor",
                tags);
    library.def("strided_conv_int8(Tensor x, Tensor weight, Tensor bias, Tensor shifts, "
                "bool relu) -> Tensor",
                tags);
    library.def("isa() -> str", isa_name);
    library.def("cuda_built() -> bool", cuda_built);
    library.def("kept_bytes() -> int", kept_bytes);
    library.def("release_kept() -> ()", release_kept);
    library.def("set_kept_limit(int bytes) -> ()", set_kept_limit);
    library.def("bf16_dots() -> bool", [] { return isa() == Isa::avx512 && bf16_dots_run(); });
}

TORCH_LIBRARY_IMPL(starlight, AutocastCPU, library)
{
    library.impl("dense_block", dense_block_autocast<at::kCPU>);
    library.impl("dense_layers", dense_layers_autocast);
}

TORCH_LIBRARY_IMPL(starlight, CPU, library)
{
    library.impl("dense_block", dense_block_op);
    library.impl("dense_block_backward", dense_block_backward_op);
    library.impl("dense_layers", dense_layers_op);
    library.impl("dense_layers_backward", dense_layers_backward_op);
}
