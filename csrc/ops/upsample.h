// The decoder's step up in one pass: 1x1 convolution to four times the channels, pixel shuffle by
// 2, bias and a skip fused.
//   out[2y + dy, 2x + dx, c] = bias[k] + weight[k] . in[y, x] + skip[2y + dy, 2x + dx, c],
//   k = 4c + 2dy + dx
#pragma once

#include "kernel.h"

namespace starlight::ops
{

struct Upsample {
    int64_t images, height, width; // of the input, any of them may be 0
    int inputs, outputs;           // channels, both at least 1; the 1x1 has 4 * outputs
    Element element;
    Isa isa;
};

// weight [4 * outputs, inputs, 1, 1], bias [4 * outputs]; contiguous. `packed` serves any size, as
// in dense_block.h.
size_t upsample_packed_bytes(const Upsample &up);
void upsample_pack(const Upsample &up, const void *weight, const void *bias, void *packed);

size_t upsample_forward_workspace_bytes(const Upsample &up, int workers);
// x: [images, height, width, inputs]; out and skip: [images, 2 height, 2 width, outputs]. A skip
// without data is none. out must not overlap x; skip may be out.
void upsample_forward(const Upsample &up, const ConstImage &x, const ConstImage &skip,
                      const void *packed, const Image &out, void *workspace, const Pool &pool);

size_t upsample_backward_workspace_bytes(const Upsample &up, int workers);
// grad_weight and grad_bias are overwritten. Gradients are the same bits for any number of workers.
void upsample_backward(const Upsample &up, const ConstImage &x, const void *weight,
                       const ConstImage &grad_out, const Image &grad_x, void *grad_weight,
                       void *grad_bias, void *workspace, const Pool &pool);

} // namespace starlight::ops
