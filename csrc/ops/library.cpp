// The kernels of csrc/ops as operators of torch: schemas, and for the CPU memory and threads;
// cuda/library.cpp is its like for GPUs. Gradients, shapes without data and autocast are registered
// in src/starlight/ops, and the rules that a caller must keep are told there; here stands what
// memory safety needs.
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <string>
#include <tuple>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "dense_block.h"
#include "strided_conv.h"
#include "tensors.h"

namespace
{

using namespace starlight::ops;

constexpr std::pair<const char *, Isa> ISA_NAMES[] = {
    {"portable", Isa::portable}, {"avx2", Isa::avx2}, {"avx512", Isa::avx512}};

Isa choose_isa()
{
    const char *wanted = std::getenv("STARLIGHT_ISA");
    if (wanted == nullptr) return best_isa();
    for (const auto &[name, isa] : ISA_NAMES) {
        if (std::string(name) != wanted) continue;
        TORCH_CHECK_VALUE(isa_runs(isa),
                          "operators: STARLIGHT_ISA must name what this processor runs, got ",
                          wanted);
        return isa;
    }
    TORCH_CHECK_VALUE(false, "operators: STARLIGHT_ISA must be portable, avx2 or avx512, got ",
                      wanted);
}

Isa isa()
{
    static const Isa chosen = choose_isa(); // once: what was packed stays readable
    return chosen;
}

std::string isa_name()
{
    for (const auto &[name, candidate] : ISA_NAMES)
        if (candidate == isa()) return name;
    TORCH_CHECK(false, "operators: instruction set must have a name");
}

Element element_of(const Tensor &x)
{
    switch (x.scalar_type()) {
    case at::kFloat: return Element::f32;
    case at::kBFloat16: return Element::bf16;
    case at::kDouble: return Element::f64;
    default:
        TORCH_CHECK_TYPE(false, "operators: x must be float32, bfloat16 or float64, got ",
                         x.scalar_type());
    }
}

void run_on_torch_threads(void *, void (*work)(void *job, int worker), void *job)
{
    at::parallel_for(0, at::get_num_threads(), 1, [=](int64_t begin, int64_t end) {
        for (int64_t worker = begin; worker < end; worker++)
            work(job, static_cast<int>(worker));
    });
}

Pool torch_pool()
{
    return {at::get_num_threads(), run_on_torch_threads, nullptr};
}

Tensor bytes(size_t count)
{
    return at::empty({static_cast<int64_t>(count)}, at::TensorOptions().dtype(at::kByte));
}

// Packed parameters, kept from call to call in inference mode alone (training changes them at every
// step). They are found again by comparing the parameters themselves: no change goes unseen.
class PackedCache
{
public:
    template <class Pack>
    Tensor find_or_pack(const DenseBlock &form, const std::vector<Tensor> &parameters, Pack pack)
    {
        if (!c10::InferenceMode::is_enabled()) return pack();
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
            if (entry->winograd != form.winograd || !same(entry->parameters, parameters)) continue;
            entries_.splice(entries_.begin(), entries_, entry);
            return entry->packed;
        }
        Entry entry{form.winograd, {}, pack()};
        for (const Tensor &value : parameters)
            entry.parameters.push_back(value.clone());
        total_ += entry.bytes();
        entries_.push_front(entry);
        while (total_ > MOST_BYTES) {
            total_ -= entries_.back().bytes();
            entries_.pop_back();
        }
        return entry.packed;
    }

private:
    static constexpr size_t MOST_BYTES = size_t{256} << 20;

    struct Entry {
        bool winograd;
        std::vector<Tensor> parameters;
        Tensor packed;

        size_t bytes() const
        {
            size_t sum = packed.nbytes();
            for (const Tensor &value : parameters)
                sum += value.nbytes();
            return sum;
        }
    };

    static bool same(const std::vector<Tensor> &a, const std::vector<Tensor> &b)
    {
        return std::equal(a.begin(), a.end(), b.begin(), [](const Tensor &x, const Tensor &y) {
            return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
                   std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
        });
    }

    std::mutex mutex_;
    std::list<Entry> entries_; // the last used first
    size_t total_ = 0;
};

PackedCache &packed_cache()
{
    static auto *cache = new PackedCache; // never destroyed: torch's allocator may go first
    return *cache;
}

// Transforming the weights costs as much as some pixels gain.
bool winograd_pays(const Tensor &x)
{
    return x.numel() / x.size(1) >= 8192;
}

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

Tensor dense_block_op(const Tensor &x, TensorList weights, TensorList biases,
                      std::optional<bool> winograd)
{
    const BlockCall call(x, weights, biases, winograd);
    const Tensor input = readable(x);
    const Tensor out = new_image(x, x.size(1), x.size(2), x.size(3));
    const Pool pool = torch_pool();
    std::vector<Tensor> parameters = call.weights;
    parameters.insert(parameters.end(), call.biases.begin(), call.biases.end());
    const Tensor packed = packed_cache().find_or_pack(call.block, parameters, [&] {
        const Tensor memory = bytes(dense_block_packed_bytes(call.block));
        dense_block_pack(call.block, call.parameters(), memory.mutable_data_ptr());
        return memory;
    });
    const Tensor workspace = bytes(dense_block_forward_workspace_bytes(call.block, pool.workers));
    dense_block_forward(call.block, view(input), packed.const_data_ptr(), mutable_view(out),
                        workspace.mutable_data_ptr(), pool);
    return out;
}

// The gradients of x, of the weights and of the biases, each in the type of what it belongs to.
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>>
dense_block_backward_op(const Tensor &grad_out, const Tensor &x, TensorList weights,
                        TensorList biases, std::optional<bool> winograd)
{
    const BlockCall call(x, weights, biases, winograd);
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
    const Tensor workspace = bytes(dense_block_backward_workspace_bytes(call.block, pool.workers));
    dense_block_backward(call.block, view(input), call.parameters(), view(gradient),
                         mutable_view(grad_x), gradients, workspace.mutable_data_ptr(), pool);
    for (int k = 0; k < 4; k++) {
        grad_weights[k] = grad_weights[k].to(weights[k].scalar_type());
        grad_biases[k] = grad_biases[k].to(biases[k].scalar_type());
    }
    return {grad_x, std::move(grad_weights), std::move(grad_biases)};
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
                isa()};
    }
};

Tensor strided_conv_op(const Tensor &x, const Tensor &weight, const Tensor &bias, bool relu)
{
    const StridedCall call(x, weight, bias, relu);
    const Tensor input = readable(x);
    const Tensor out =
        new_image(x, call.conv.outputs, call.conv.out_height(), call.conv.out_width());
    const Pool pool = torch_pool();
    const Tensor packed = bytes(strided_conv_packed_bytes(call.conv));
    strided_conv_pack(call.conv, call.weight.const_data_ptr(), call.bias.const_data_ptr(),
                      packed.mutable_data_ptr());
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
    library.def("strided_conv(Tensor x, Tensor weight, Tensor bias, bool relu) -> Tensor", tags);
    library.def("strided_conv_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor bias, "
                "Tensor? out) -> (Tensor, Tensor, Tensor)",
                tags);
    library.def("dense_block_int8(Tensor x, Tensor[] weights, Tensor[] biases, Tensor[] shifts, "
                "Tensor join_shifts) -> Tensor",
                tags);
    library.def("strided_conv_int8(Tensor x, Tensor weight, Tensor bias, Tensor shifts, "
                "bool relu) -> Tensor",
                tags);
    library.def("isa() -> str", isa_name);
    library.def("cuda_built() -> bool", cuda_built);
}

TORCH_LIBRARY_IMPL(starlight, AutocastCPU, library)
{
    constexpr auto KEY = c10::DispatchKey::AutocastCPU;
    library.impl("dense_block", dense_block_autocast<at::kCPU, KEY>);
    library.impl("strided_conv", strided_conv_autocast<at::kCPU, KEY>);
}

TORCH_LIBRARY_IMPL(starlight, CPU, library)
{
    library.impl("dense_block", dense_block_op);
    library.impl("dense_block_backward", dense_block_backward_op);
    library.impl("strided_conv", strided_conv_op);
    library.impl("strided_conv_backward", strided_conv_backward_op);
}
