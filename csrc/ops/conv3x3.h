// 3x3 convolution of stride 1 and padding 1, as head, second and tail are; bias and a skip fused.
//   out[y, x] = bias + sum over dy, dx of weight[dy, dx] . in[y + dy - 1, x + dx - 1] + skip[y, x]
#pragma once

#include "kernel.h"

namespace starlight::ops
{

struct Conv3x3 {
    int64_t images, height, width; // any of them may be 0
    int inputs, outputs;           // channels, both at least 1
    Element element;
    Isa isa;
    bool winograd; // F(4x4, 3x3) in place of direct; without effect on f64
};

// weight [outputs, inputs, 3, 3], bias [outputs]; contiguous. `packed` serves any size, as in
// dense_block.h.
size_t conv3x3_packed_bytes(const Conv3x3 &conv);
void conv3x3_pack(const Conv3x3 &conv, const void *weight, const void *bias, void *packed);

size_t conv3x3_forward_workspace_bytes(const Conv3x3 &conv, int workers);
// x: [images, height, width, inputs]; out and skip: [images, height, width, outputs]. A skip
// without data is none. out must not overlap x; skip may be out.
void conv3x3_forward(const Conv3x3 &conv, const ConstImage &x, const ConstImage &skip,
                     const void *packed, const Image &out, void *workspace, const Pool &pool);

} // namespace starlight::ops
