// What the gradient of strided_conv needs beside conv.cuh and weight_gradient.cuh.
#pragma once

#include "tile.cuh"

namespace starlight::cuda
{

struct MaskPlan {
    Source gradient, result;
    Target target; // densely packed
    int64_t units; // of all pixels
};

constexpr int MASK_THREADS = 256;

// The gradient before the ReLU: zero where the result is.
template <class T>
__global__ void __launch_bounds__(MASK_THREADS) mask_gradient(const MaskPlan plan)
{
    const int64_t index = int64_t{blockIdx.x} * MASK_THREADS + threadIdx.x;
    const bool active = index < plan.units;
    const int per_pixel = plan.target.channels / UNIT<T>;
    const int64_t pixel = index / per_pixel;
    const int channel = static_cast<int>(index - pixel * per_pixel) * UNIT<T>;
    const int x = static_cast<int>(pixel % plan.target.width);
    const int64_t row = pixel / plan.target.width;
    const int y = static_cast<int>(row % plan.target.height);
    const int64_t n = row / plan.target.height;
    const auto read = [&](const Source &image) {
        return load_unit<T>(pixel_address(image, n, y, x), channel, image.channels,
                            image.whole_units, active);
    };
    Packet<T, UNIT<T>> gradient = read(plan.gradient);
    const Packet<T, UNIT<T>> result = read(plan.result);
#pragma unroll
    for (int i = 0; i < UNIT<T>; i++)
        if (Number<T>::widen(result[i]) <= 0) gradient[i] = T{};
    store_unit<T>(plan.target, pixel_address(plan.target, n, y, x), channel, gradient, active);
}

} // namespace starlight::cuda
