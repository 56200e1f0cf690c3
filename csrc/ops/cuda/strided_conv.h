// The 3x3 convolution of stride 2 of ../strided_conv.h on CUDA, and its integer form.
#pragma once

#include "kernel.h"

namespace starlight::cuda
{

struct StridedConv {
    int64_t images, height, width; // of the input, any of them may be 0
    int inputs, outputs;           // channels, both at least 1
    bool relu;
    Element element;

    int64_t out_height() const { return (height + 1) / 2; }
    int64_t out_width() const { return (width + 1) / 2; }
};

// weight [outputs, inputs, 3, 3], bias [outputs]; with i8 a requantisation shift per output.
struct StridedConvParameters {
    const void *weight, *bias;
    const int32_t *shift = nullptr;
};

size_t strided_conv_forward_workspace_bytes(const StridedConv &conv);
void strided_conv_forward(const StridedConv &conv, const ConstImage &x,
                          const StridedConvParameters &parameters, const Image &out,
                          void *workspace, void *stream);

size_t strided_conv_backward_workspace_bytes(const StridedConv &conv, void *stream);
// `out` is the forward's result; it is read only with relu. grad_weight and grad_bias are
// overwritten.
void strided_conv_backward(const StridedConv &conv, const ConstImage &x,
                           const StridedConvParameters &parameters, const ConstImage &out,
                           const ConstImage &grad_out, const Image &grad_x, void *grad_weight,
                           void *grad_bias, void *workspace, void *stream);

} // namespace starlight::cuda
