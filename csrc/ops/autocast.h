// The operators under autocast, on any device: activations are lowered, parameters stay as they
// are.
#pragma once

#include <optional>

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "tensors.h"

namespace starlight::ops
{

template <at::DeviceType Device> Tensor lowered(const Tensor &x)
{
    return at::autocast::cached_cast(at::autocast::get_autocast_dtype(Device), x, Device);
}

// The skip is an activation as x is.
template <at::DeviceType Device> std::optional<Tensor> lowered(const std::optional<Tensor> &skip)
{
    if (!skip) return skip;
    return lowered<Device>(*skip);
}

template <at::DeviceType Device, typename Result = Tensor, typename... Rest>
Result call_lowered(const char *name, const Tensor &x, Rest... rest)
{
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(
        at::autocast::get_autocast_dispatch_key_from_device_type(Device));
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow(name, "")
        .typed<Result(const Tensor &, Rest...)>()
        .call(lowered<Device>(x), rest...);
}

template <at::DeviceType Device>
Tensor dense_block_autocast(const Tensor &x, TensorList weights, TensorList biases,
                            std::optional<bool> winograd)
{
    return call_lowered<Device, Tensor, TensorList, TensorList, std::optional<bool>>(
        "starlight::dense_block", x, weights, biases, winograd);
}

template <at::DeviceType Device>
Tensor strided_conv_autocast(const Tensor &x, const Tensor &weight, const Tensor &bias, bool relu,
                             std::optional<bool> winograd)
{
    return call_lowered<Device, Tensor, const Tensor &, const Tensor &, bool, std::optional<bool>>(
        "starlight::strided_conv", x, weight, bias, relu, winograd);
}

template <at::DeviceType Device>
Tensor conv3x3_autocast(const Tensor &x, const Tensor &weight, const Tensor &bias,
                        const std::optional<Tensor> &skip, std::optional<bool> winograd)
{
    return call_lowered<Device, Tensor, const Tensor &, const Tensor &,
                        const std::optional<Tensor> &, std::optional<bool>>(
        "starlight::conv3x3", x, weight, bias, lowered<Device>(skip), winograd);
}

template <at::DeviceType Device>
Tensor upsample_autocast(const Tensor &x, const Tensor &weight, const Tensor &bias,
                         const std::optional<Tensor> &skip)
{
    return call_lowered<Device, Tensor, const Tensor &, const Tensor &,
                        const std::optional<Tensor> &>("starlight::upsample", x, weight, bias,
                                                       lowered<Device>(skip));
}

} // namespace starlight::ops
