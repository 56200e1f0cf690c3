// The kernels of one instruction set, as a table; portable.cpp, avx2.cpp and avx512.cpp fill one
// each.
#pragma once

#include "../conv3x3.h"
#include "../dense_block.h"
#include "../strided_conv.h"
#include "../upsample.h"

namespace starlight::ops
{

struct DenseBlockKernels {
    size_t (*packed_bytes)(const DenseBlock &);
    void (*pack)(const DenseBlock &, const DenseBlockParameters &, void *);
    size_t (*forward_bytes)(const DenseBlock &, int);
    void (*forward)(const DenseBlock &, const ConstImage &, const void *, const Image &,
                    const Image &, void *, const Pool &);
    size_t (*backward_bytes)(const DenseBlock &, int);
    void (*backward)(const DenseBlock &, const ConstImage &, const DenseBlockParameters &,
                     const ConstImage &, const ConstImage &, const Image &,
                     const DenseBlockGradients &, void *, const Pool &);
};

struct DenseLayersKernels {
    size_t (*forward_bytes)(const DenseBlock &, int);
    void (*forward)(const DenseBlock &, const ConstImage &, const DenseBlockParameters &,
                    const Image &, const Image &, void *, const Pool &);
    size_t (*backward_bytes)(const DenseBlock &, int);
    void (*backward)(const DenseBlock &, const ConstImage &, const DenseBlockParameters &,
                     const ConstImage &, const ConstImage &, const Image &,
                     const DenseBlockGradients &, void *, const Pool &);
};

struct StridedConvKernels {
    size_t (*packed_bytes)(const StridedConv &);
    void (*pack)(const StridedConv &, const void *, const void *, void *);
    size_t (*forward_bytes)(const StridedConv &, int);
    void (*forward)(const StridedConv &, const ConstImage &, const void *, const Image &, void *,
                    const Pool &);
    size_t (*backward_bytes)(const StridedConv &, int);
    void (*backward)(const StridedConv &, const ConstImage &, const void *, const ConstImage &,
                     const ConstImage &, const Image &, void *, void *, void *, const Pool &);
};

struct Conv3x3Kernels {
    size_t (*packed_bytes)(const Conv3x3 &);
    void (*pack)(const Conv3x3 &, const void *, const void *, void *);
    size_t (*forward_bytes)(const Conv3x3 &, int);
    void (*forward)(const Conv3x3 &, const ConstImage &, const ConstImage &, const void *,
                    const Image &, void *, const Pool &);
};

struct UpsampleKernels {
    size_t (*packed_bytes)(const Upsample &);
    void (*pack)(const Upsample &, const void *, const void *, void *);
    size_t (*forward_bytes)(const Upsample &, int);
    void (*forward)(const Upsample &, const ConstImage &, const ConstImage &, const void *,
                    const Image &, void *, const Pool &);
    size_t (*backward_bytes)(const Upsample &, int);
    void (*backward)(const Upsample &, const ConstImage &, const void *, const ConstImage &,
                     const Image &, void *, void *, void *, const Pool &);
};

namespace portable
{
DenseBlockKernels dense_block_kernels(Element element, bool winograd);
DenseLayersKernels dense_layers_kernels(Element element);
StridedConvKernels strided_conv_kernels(Element element, bool winograd);
Conv3x3Kernels conv3x3_kernels(Element element, bool winograd);
UpsampleKernels upsample_kernels(Element element);
} // namespace portable
namespace avx2
{
DenseBlockKernels dense_block_kernels(Element element, bool winograd);
DenseLayersKernels dense_layers_kernels(Element element);
StridedConvKernels strided_conv_kernels(Element element, bool winograd);
Conv3x3Kernels conv3x3_kernels(Element element, bool winograd);
UpsampleKernels upsample_kernels(Element element);
} // namespace avx2
namespace avx512
{
DenseBlockKernels dense_block_kernels(Element element, bool winograd);
DenseLayersKernels dense_layers_kernels(Element element);
StridedConvKernels strided_conv_kernels(Element element, bool winograd);
StridedConvKernels strided_layers_kernels(); // of f32
Conv3x3Kernels conv3x3_kernels(Element element, bool winograd);
UpsampleKernels upsample_kernels(Element element);
} // namespace avx512
namespace avx512_bf16
{ // of bf16
DenseLayersKernels dense_layers_kernels();
StridedConvKernels strided_layers_kernels();
UpsampleKernels upsample_kernels();
} // namespace avx512_bf16

} // namespace starlight::ops
