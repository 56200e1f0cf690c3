// 3x3 convolution of stride 2 and padding 1, the encoder's step down; bias and ReLU fused.
//   out[y, x] = act(bias + sum over dy, dx of weight[dy, dx] . in[2y + dy - 1, 2x + dx - 1])
#pragma once

#include "kernel.h"

namespace starlight::ops
{

struct StridedConv {
    int64_t images, height, width; // of the input, any of them may be 0
    int inputs, outputs;           // channels, both at least 1
    bool relu;
    Element element;
    Isa isa;
    bool winograd; // forward by Winograd's products of phases; without effect on f64

    int64_t out_height() const { return (height + 1) / 2; }
    int64_t out_width() const { return (width + 1) / 2; }
};

// Whether bfloat16 is multiplied as it is, unless by Winograd, which then is slower.
bool strided_conv_by_dots(const StridedConv &conv);

// weight [outputs, inputs, 3, 3], bias [outputs]; contiguous. `packed` serves any size, as in
// dense_block.h.
size_t strided_conv_packed_bytes(const StridedConv &conv);
void strided_conv_pack(const StridedConv &conv, const void *weight, const void *bias, void *packed);

size_t strided_conv_forward_workspace_bytes(const StridedConv &conv, int workers);
// x: [images, height, width, inputs]; out: [images, out_height, out_width, outputs].
void strided_conv_forward(const StridedConv &conv, const ConstImage &x, const void *packed,
                          const Image &out, void *workspace, const Pool &pool);

size_t strided_conv_backward_workspace_bytes(const StridedConv &conv, int workers);
// `out` is the forward's result; it is read only with relu. grad_weight and grad_bias are
// overwritten.
void strided_conv_backward(const StridedConv &conv, const ConstImage &x, const void *weight,
                           const ConstImage &out, const ConstImage &grad_out, const Image &grad_x,
                           void *grad_weight, void *grad_bias, void *workspace, const Pool &pool);

} // namespace starlight::ops
