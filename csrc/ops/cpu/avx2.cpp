// Built with -mavx2 -mfma.
#define STARLIGHT_ISA avx2
#include "kernel_table.h"

namespace starlight::ops::avx2
{

using Floats = Lanes<float, 8, 12>;

DenseBlockKernels dense_block_kernels(Element element, bool winograd)
{
    return element == Element::bf16 ? dense_block_table<Bf16, Floats>(winograd)
                                    : dense_block_table<float, Floats>(winograd);
}

DenseLayersKernels dense_layers_kernels(Element element)
{
    return element == Element::bf16 ? dense_layers_table<Widened<Bf16, Floats>>()
                                    : dense_layers_table<Widened<float, Floats>>();
}

StridedConvKernels strided_conv_kernels(Element element, bool winograd)
{
    return element == Element::bf16 ? strided_conv_table<Bf16, Floats>(winograd)
                                    : strided_conv_table<float, Floats>(winograd);
}

Conv3x3Kernels conv3x3_kernels(Element element, bool winograd)
{
    return element == Element::bf16 ? conv3x3_table<Bf16, Floats>(winograd)
                                    : conv3x3_table<float, Floats>(winograd);
}

UpsampleKernels upsample_kernels(Element element)
{
    return element == Element::bf16 ? upsample_table<Widened<Bf16, Floats>>()
                                    : upsample_table<Widened<float, Floats>>();
}

} // namespace starlight::ops::avx2
