// The dense residual block of ../dense_block.h on CUDA, and its integer form.
#pragma once

#include "kernel.h"

namespace starlight::cuda
{

struct DenseBlock {
    int64_t images, height, width; // any of them may be 0
    int channels, growth;          // M and G, both at least 1
    Element element;
};

// Shapes as in ../dense_block.h. With i8, one requantisation shift per output channel, and per
// channel of the last the left shift with which x joins its sums: csrc/contract/intmath.h.
struct DenseBlockParameters {
    const void *weight[4];
    const void *bias[4];
    const int32_t *shift[4] = {};
    const int32_t *join_shift = nullptr;
};

struct DenseBlockGradients {
    void *weight[4]; // overwritten
    void *bias[4];
};

// How forward runs: in one pass, where rings of rows and all weights fit into shared memory of the
// stream's device; else as four convolutions, whose intermediates lie in the workspace.
bool dense_block_fits(const DenseBlock &block, void *stream);

size_t dense_block_forward_workspace_bytes(const DenseBlock &block, void *stream);
// out must not overlap x.
void dense_block_forward(const DenseBlock &block, const ConstImage &x,
                         const DenseBlockParameters &parameters, const Image &out, void *workspace,
                         void *stream);

size_t dense_block_backward_workspace_bytes(const DenseBlock &block, void *stream);
// Computes the intermediates again. grad_x must overlap neither x nor grad_out.
void dense_block_backward(const DenseBlock &block, const ConstImage &x,
                          const DenseBlockParameters &parameters, const ConstImage &grad_out,
                          const Image &grad_x, const DenseBlockGradients &gradients,
                          void *workspace, void *stream);

} // namespace starlight::cuda
