// What the operators ask of torch's tensors, on any device: layout, types, and the checks that
// memory safety needs.
#pragma once

#include <ATen/ATen.h>

#include "kernel.h"

namespace starlight::ops
{

using at::Tensor;
using at::TensorList;

// "the CPU", "cuda:1": of a message.
inline std::string place_name(const at::Device &device)
{
    return device.is_cpu() ? "the CPU" : device.str();
}

// Whether the kernels read x as it is: its channels lie side by side.
inline bool is_readable(const Tensor &x)
{
    return x.size(1) == 1 || x.stride(1) == 1;
}

// [N, C, H, W] in channels last.
inline ConstImage view(const Tensor &x)
{
    return {x.const_data_ptr(), x.stride(0), x.stride(2), x.stride(3)};
}

inline Image mutable_view(const Tensor &x)
{
    return {x.mutable_data_ptr(), x.stride(0), x.stride(2), x.stride(3)};
}

inline at::ScalarType parameter_type(const Tensor &x)
{
    return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// A value of `shape` beside x; `name` and `shape` are its rule.
inline void check_beside(const Tensor &x, const Tensor &value, const char *name,
                         at::IntArrayRef shape)
{
    TORCH_CHECK_VALUE(value.sizes() == shape, "operators: ", name, " must have shape ", shape,
                      ", got ", value.sizes());
    TORCH_CHECK_TYPE(value.device() == x.device(), "operators: ", name, " must be on ",
                     place_name(x.device()), " as x is, got ", value.device());
}

// A parameter as the kernels read it.
inline Tensor parameter(const Tensor &x, const Tensor &value, const char *name,
                        at::IntArrayRef shape)
{
    check_beside(x, value, name, shape);
    TORCH_CHECK_TYPE(at::isFloatingType(value.scalar_type()), "operators: ", name,
                     " must be floating point, got ", value.scalar_type());
    return value.to(parameter_type(x)).contiguous();
}

inline void check_image(const Tensor &x, const char *name, at::DeviceType device)
{
    TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) >= 1, "operators: ", name,
                      " must be [N, C, H, W] with C >= 1, got ", x.sizes());
    TORCH_CHECK_TYPE(x.device().type() == device, "operators: ", name, " must be on ",
                     device == at::kCPU ? "the CPU" : "a GPU", ", got ", x.device());
}

inline void check_like(const Tensor &value, const Tensor &x, at::IntArrayRef shape,
                       const char *name)
{
    check_image(value, name, x.device().type());
    check_beside(x, value, name, shape);
    TORCH_CHECK_TYPE(value.scalar_type() == x.scalar_type(), "operators: ", name, " must be ",
                     x.scalar_type(), " as x is, got ", value.scalar_type());
}

// Four weights and biases of a dense block to `keep(k, name, value, shape)` in turn; G is returned.
template <class Keep>
int64_t for_each_parameter(const Tensor &x, TensorList weights, TensorList biases, const Keep &keep)
{
    TORCH_CHECK_VALUE(weights.size() == 4 && biases.size() == 4,
                      "operators: weights and biases must be 4 each, got ", weights.size(), " and ",
                      biases.size());
    TORCH_CHECK_VALUE(weights[0].dim() == 4 && weights[0].size(0) >= 1,
                      "operators: weights[0] must be [G, M, 3, 3] with G >= 1, got ",
                      weights[0].sizes());
    const int64_t m = x.size(1), g = weights[0].size(0);
    for (int k = 0; k < 4; k++) {
        const int64_t inputs = m + k * g, outputs = k < 3 ? g : m, side = k < 3 ? 3 : 1;
        const int64_t shape[] = {outputs, inputs, side, side};
        keep(k, "weights", weights[k], at::IntArrayRef(shape, 4));
        keep(k, "biases", biases[k], at::IntArrayRef(shape, 1));
    }
    return g;
}

} // namespace starlight::ops
