// The 3x3 convolution's entry points: each finds its kernel in the table of the instruction set.
#include "../conv3x3.h"

#include "kernels.h"

namespace starlight::ops
{

static Conv3x3Kernels kernels(const Conv3x3 &conv)
{
    const Isa isa = conv.element == Element::f64 ? Isa::portable : conv.isa;
    switch (isa) {
    case Isa::avx512: return avx512::conv3x3_kernels(conv.element, conv.winograd);
    case Isa::avx2: return avx2::conv3x3_kernels(conv.element, conv.winograd);
    default: return portable::conv3x3_kernels(conv.element, conv.winograd);
    }
}

static bool empty(const Conv3x3 &conv)
{
    return conv.images == 0 || conv.height == 0 || conv.width == 0;
}

size_t conv3x3_packed_bytes(const Conv3x3 &conv)
{
    return kernels(conv).packed_bytes(conv);
}

void conv3x3_pack(const Conv3x3 &conv, const void *weight, const void *bias, void *packed)
{
    kernels(conv).pack(conv, weight, bias, packed);
}

size_t conv3x3_forward_workspace_bytes(const Conv3x3 &conv, int workers)
{
    return empty(conv) ? 0 : kernels(conv).forward_bytes(conv, workers);
}

void conv3x3_forward(const Conv3x3 &conv, const ConstImage &x, const ConstImage &skip,
                     const void *packed, const Image &out, void *workspace, const Pool &pool)
{
    if (!empty(conv)) kernels(conv).forward(conv, x, skip, packed, out, workspace, pool);
}

} // namespace starlight::ops
