// The strided convolution's entry points: each finds its kernel in the table of the instruction
// set.
#include "../strided_conv.h"

#include "kernels.h"

namespace starlight::ops
{

static Isa isa_of(const StridedConv &conv)
{
    return conv.element == Element::f64 ? Isa::portable : conv.isa;
}

// Below 32 channels a tap fills too little of a block for products of gathered pixels to pay.
bool strided_conv_by_dots(const StridedConv &conv)
{
    return conv.isa == Isa::avx512 && conv.element == Element::bf16 && bf16_dots_run() &&
           conv.inputs >= 32;
}

static StridedConvKernels kernels(const StridedConv &conv)
{
    if (!conv.winograd && strided_conv_by_dots(conv)) return avx512_bf16::strided_layers_kernels();
    switch (isa_of(conv)) {
    case Isa::avx512: return avx512::strided_conv_kernels(conv.element, conv.winograd);
    case Isa::avx2: return avx2::strided_conv_kernels(conv.element, conv.winograd);
    default: return portable::strided_conv_kernels(conv.element, conv.winograd);
    }
}

// In float32 the backward pass alone gains, and from more channels on.
static StridedConvKernels backward_kernels(const StridedConv &conv)
{
    const bool layered =
        isa_of(conv) == Isa::avx512 && conv.element == Element::f32 && conv.inputs >= 64;
    return layered ? avx512::strided_layers_kernels() : kernels(conv);
}

static bool empty(const StridedConv &conv)
{
    return conv.images == 0 || conv.height == 0 || conv.width == 0;
}

size_t strided_conv_packed_bytes(const StridedConv &conv)
{
    return kernels(conv).packed_bytes(conv);
}

void strided_conv_pack(const StridedConv &conv, const void *weight, const void *bias, void *packed)
{
    kernels(conv).pack(conv, weight, bias, packed);
}

size_t strided_conv_forward_workspace_bytes(const StridedConv &conv, int workers)
{
    return empty(conv) ? 0 : kernels(conv).forward_bytes(conv, workers);
}

void strided_conv_forward(const StridedConv &conv, const ConstImage &x, const void *packed,
                          const Image &out, void *workspace, const Pool &pool)
{
    if (!empty(conv)) kernels(conv).forward(conv, x, packed, out, workspace, pool);
}

size_t strided_conv_backward_workspace_bytes(const StridedConv &conv, int workers)
{
    return backward_kernels(conv).backward_bytes(conv, workers);
}

void strided_conv_backward(const StridedConv &conv, const ConstImage &x, const void *weight,
                           const ConstImage &out, const ConstImage &grad_out, const Image &grad_x,
                           void *grad_weight, void *grad_bias, void *workspace, const Pool &pool)
{
    backward_kernels(conv).backward(conv, x, weight, out, grad_out, grad_x, grad_weight, grad_bias,
                                    workspace, pool);
}

} // namespace starlight::ops
