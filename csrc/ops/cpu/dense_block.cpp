// The dense block's entry points: each finds its kernel in the table of the instruction set.
#include "../dense_block.h"

#include "kernels.h"

namespace starlight::ops
{

static DenseBlockKernels kernels(const DenseBlock &block)
{
    const Isa isa = block.element == Element::f64 ? Isa::portable : block.isa;
    switch (isa) {
    case Isa::avx512: return avx512::dense_block_kernels(block.element, block.winograd);
    case Isa::avx2: return avx2::dense_block_kernels(block.element, block.winograd);
    default: return portable::dense_block_kernels(block.element, block.winograd);
    }
}

static DenseLayersKernels layers(const DenseBlock &block)
{
    const Isa isa = block.element == Element::f64 ? Isa::portable : block.isa;
    switch (isa) {
    case Isa::avx512:
        return block.element == Element::bf16 && bf16_dots_run()
                   ? avx512_bf16::dense_layers_kernels()
                   : avx512::dense_layers_kernels(block.element);
    case Isa::avx2: return avx2::dense_layers_kernels(block.element);
    default: return portable::dense_layers_kernels(block.element);
    }
}

static bool empty(const DenseBlock &block)
{
    return block.images == 0 || block.height == 0 || block.width == 0;
}

size_t dense_block_packed_bytes(const DenseBlock &block)
{
    return kernels(block).packed_bytes(block);
}

void dense_block_pack(const DenseBlock &block, const DenseBlockParameters &parameters, void *packed)
{
    kernels(block).pack(block, parameters, packed);
}

size_t dense_block_forward_workspace_bytes(const DenseBlock &block, int workers)
{
    return empty(block) ? 0 : kernels(block).forward_bytes(block, workers);
}

void dense_block_forward(const DenseBlock &block, const ConstImage &x, const void *packed,
                         const Image &out, const Image &members, void *workspace, const Pool &pool)
{
    if (!empty(block)) kernels(block).forward(block, x, packed, out, members, workspace, pool);
}

size_t dense_block_backward_workspace_bytes(const DenseBlock &block, int workers)
{
    return kernels(block).backward_bytes(block, workers);
}

void dense_block_backward(const DenseBlock &block, const ConstImage &x,
                          const DenseBlockParameters &parameters, const ConstImage &members,
                          const ConstImage &grad_out, const Image &grad_x,
                          const DenseBlockGradients &gradients, void *workspace, const Pool &pool)
{
    kernels(block).backward(block, x, parameters, members, grad_out, grad_x, gradients, workspace,
                            pool);
}

size_t dense_layers_forward_workspace_bytes(const DenseBlock &block, int workers)
{
    return empty(block) ? 0 : layers(block).forward_bytes(block, workers);
}

void dense_layers_forward(const DenseBlock &block, const ConstImage &x,
                          const DenseBlockParameters &parameters, const Image &members,
                          const Image &out, void *workspace, const Pool &pool)
{
    if (!empty(block)) layers(block).forward(block, x, parameters, members, out, workspace, pool);
}

size_t dense_layers_backward_workspace_bytes(const DenseBlock &block, int workers)
{
    return layers(block).backward_bytes(block, workers);
}

void dense_layers_backward(const DenseBlock &block, const ConstImage &x,
                           const DenseBlockParameters &parameters, const ConstImage &members,
                           const ConstImage &grad_out, const Image &grad_x,
                           const DenseBlockGradients &gradients, void *workspace, const Pool &pool)
{
    layers(block).backward(block, x, parameters, members, grad_out, grad_x, gradients, workspace,
                           pool);
}

} // namespace starlight::ops
