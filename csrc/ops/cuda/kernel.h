// What the CUDA kernels of csrc/ops share towards their callers. Torch-free and free of CUDA's
// headers: raw device pointers in, a stream behind `void *`. Calls return before the work is done;
// they allocate nothing and wait for nothing, so a stream may be captured. They throw
// std::runtime_error where a launch fails.
#pragma once

#include "../kernel.h"

namespace starlight::cuda
{

// Of activations. Parameters (weights, biases) and their gradients are double with f64, float with
// f32, f16 and bf16; i8 has int8 weights, int32 biases and shifts, and no gradients. Sums are
// float, double with f64, int32 with i8. f16 and bf16 round weights and kept intermediates to that
// type.
enum class Element { f32, f16, bf16, f64, i8 };

// [images, height, width, channels], channels side by side; strides count elements.
using ops::ConstImage;
using ops::Image;

// Of workspace memory.
inline constexpr size_t ALIGNMENT_BYTES = 128;

} // namespace starlight::cuda
