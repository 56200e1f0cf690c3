// The upsampling's entry points: each finds its kernel in the table of the instruction set.
#include "../upsample.h"

#include "kernels.h"

namespace starlight::ops
{

static UpsampleKernels kernels(const Upsample &up)
{
    const Isa isa = up.element == Element::f64 ? Isa::portable : up.isa;
    switch (isa) {
    case Isa::avx512:
        return up.element == Element::bf16 && bf16_dots_run()
                   ? avx512_bf16::upsample_kernels()
                   : avx512::upsample_kernels(up.element);
    case Isa::avx2: return avx2::upsample_kernels(up.element);
    default: return portable::upsample_kernels(up.element);
    }
}

size_t upsample_packed_bytes(const Upsample &up)
{
    return kernels(up).packed_bytes(up);
}

void upsample_pack(const Upsample &up, const void *weight, const void *bias, void *packed)
{
    kernels(up).pack(up, weight, bias, packed);
}

size_t upsample_forward_workspace_bytes(const Upsample &up, int workers)
{
    return kernels(up).forward_bytes(up, workers);
}

void upsample_forward(const Upsample &up, const ConstImage &x, const ConstImage &skip,
                      const void *packed, const Image &out, void *workspace, const Pool &pool)
{
    kernels(up).forward(up, x, skip, packed, out, workspace, pool);
}

size_t upsample_backward_workspace_bytes(const Upsample &up, int workers)
{
    return kernels(up).backward_bytes(up, workers);
}

void upsample_backward(const Upsample &up, const ConstImage &x, const void *weight,
                       const ConstImage &grad_out, const Image &grad_x, void *grad_weight,
                       void *grad_bias, void *workspace, const Pool &pool)
{
    kernels(up).backward(up, x, weight, grad_out, grad_x, grad_weight, grad_bias, workspace, pool);
}

} // namespace starlight::ops
