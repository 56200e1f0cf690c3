// Built with the flags of avx512.cpp and -mavx512bf16.
#define STARLIGHT_ISA avx512_bf16
#include "kernel_table.h"

namespace starlight::ops::avx512_bf16
{

#ifdef __AVX512BF16__
using Pairs = Dots;
#else // another processor's build: bf16_dots_run() is false there
using Pairs = Widened<Bf16, Lanes<float, 4, 12>>;
#endif

DenseLayersKernels dense_layers_kernels()
{
    return dense_layers_table<Pairs>();
}

StridedConvKernels strided_layers_kernels()
{
    return strided_layers_table<Pairs>();
}

UpsampleKernels upsample_kernels()
{
    return upsample_table<Pairs>();
}

} // namespace starlight::ops::avx512_bf16
