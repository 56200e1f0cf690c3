// The kernels of one instruction set, as a table; portable.cpp, avx2.cpp and avx512.cpp fill one each.
#pragma once

#include "../dense_block.h"
#include "../strided_conv.h"

namespace starlight::ops
{

struct DenseBlockKernels {
    size_t (*packed_bytes)(const DenseBlock &);
    void (*pack)(const DenseBlock &, const DenseBlockParameters &, void *);
    size_t (*forward_bytes)(const DenseBlock &, int);
    void (*forward)(const DenseBlock &, const ConstImage &, const void *, const Image &, void *,
                    const Pool &);
    size_t (*backward_bytes)(const DenseBlock &, int);
    void (*backward)(const DenseBlock &, const ConstImage &, const DenseBlockParameters &,
                     const ConstImage &, const Image &, const DenseBlockGradients &, void *,
                     const Pool &);
};

namespace portable
{
DenseBlockKernels dense_block_kernels(Element element, bool winograd);
}
namespace avx2
{
DenseBlockKernels dense_block_kernels(Element element, bool winograd);
}
namespace avx512
{
DenseBlockKernels dense_block_kernels(Element element, bool winograd);
}

} // namespace starlight::ops
