// Dense residual block as one op: three 3x3 convolutions (padding 1) that each read all before
// them, a 1x1 that fuses, the residual.
//   out1 = relu(conv1 [x]),  out2 = relu(conv2 [x, out1]),  out3 = relu(conv3 [x, out1, out2])
//   out  = x + fuse [x, out1, out2, out3]
// In two forms. Rolling: the intermediates live in a growth buffer per worker, and reach memory of
// the image's size only for a backward pass. Layered, for training on few pixels: layer after layer
// over all images.
// members: out1, out2, out3 side by side in [images, height, width, 3G], without gaps.
#pragma once

#include "kernel.h"

namespace starlight::ops
{

struct DenseBlock {
    int64_t images, height, width; // any of them may be 0
    int channels, growth;          // M and G, both at least 1
    Element element;               // of x, out and their gradients
    Isa isa;                       // one that isa_runs()
    bool winograd;                 // F(4x4, 3x3) in place of direct 3x3; without effect on f64
};

// conv1 [G, M, 3, 3], conv2 [G, M + G, 3, 3], conv3 [G, M + 2G, 3, 3], fuse [M, M + 3G, 1, 1] and
// their biases [G], [G], [G], [M]; contiguous, in this order.
struct DenseBlockParameters {
    const void *weight[4];
    const void *bias[4];
};

struct DenseBlockGradients {
    void *weight[4]; // overwritten, shapes as above
    void *bias[4];
};

// The parameters as forward reads them. Depends on channels, growth, element == f64, isa and
// winograd only: pack once, run on any size and on f32 and bf16 alike.
size_t dense_block_packed_bytes(const DenseBlock &block);
void dense_block_pack(const DenseBlock &block, const DenseBlockParameters &parameters,
                      void *packed);

size_t dense_block_forward_workspace_bytes(const DenseBlock &block, int workers);
// x, out: [images, height, width, M]; out must not overlap x. Of out and members those with data
// are written.
void dense_block_forward(const DenseBlock &block, const ConstImage &x, const void *packed,
                         const Image &out, const Image &members, void *workspace, const Pool &pool);

// Rolling, by Winograd: block.winograd must be set, and element other than f64.
size_t dense_block_backward_workspace_bytes(const DenseBlock &block, int workers);
// grad_x must overlap neither x nor grad_out.
void dense_block_backward(const DenseBlock &block, const ConstImage &x,
                          const DenseBlockParameters &parameters, const ConstImage &members,
                          const ConstImage &grad_out, const Image &grad_x,
                          const DenseBlockGradients &gradients, void *workspace, const Pool &pool);

// Layered, always direct.
size_t dense_layers_forward_workspace_bytes(const DenseBlock &block, int workers);
// Without out.data only the members are computed.
void dense_layers_forward(const DenseBlock &block, const ConstImage &x,
                          const DenseBlockParameters &parameters, const Image &members,
                          const Image &out, void *workspace, const Pool &pool);

size_t dense_layers_backward_workspace_bytes(const DenseBlock &block, int workers);
// grad_x must overlap neither x nor grad_out. Gradients are the same bits for any number of
// workers.
void dense_layers_backward(const DenseBlock &block, const ConstImage &x,
                           const DenseBlockParameters &parameters, const ConstImage &members,
                           const ConstImage &grad_out, const Image &grad_x,
                           const DenseBlockGradients &gradients, void *workspace, const Pool &pool);

} // namespace starlight::ops
