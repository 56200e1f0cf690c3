// Built for any processor; the one home of f64.
#define STARLIGHT_ISA portable
#include "kernel_table.h"

namespace starlight::ops::portable
{

using Floats = Lanes<float, 4, 12>;
using Doubles = Lanes<double, 2, 12>;

DenseBlockKernels dense_block_kernels(Element element, bool winograd)
{
    switch (element) {
    case Element::f64: return direct_dense_block_table<double, Doubles>();
    case Element::bf16: return dense_block_table<Bf16, Floats>(winograd);
    default: return dense_block_table<float, Floats>(winograd);
    }
}

DenseLayersKernels dense_layers_kernels(Element element)
{
    switch (element) {
    case Element::f64: return dense_layers_table<Widened<double, Doubles>>();
    case Element::bf16: return dense_layers_table<Widened<Bf16, Floats>>();
    default: return dense_layers_table<Widened<float, Floats>>();
    }
}

StridedConvKernels strided_conv_kernels(Element element, bool winograd)
{
    switch (element) {
    case Element::f64: return direct_strided_conv_table<double, Doubles>();
    case Element::bf16: return strided_conv_table<Bf16, Floats>(winograd);
    default: return strided_conv_table<float, Floats>(winograd);
    }
}

Conv3x3Kernels conv3x3_kernels(Element element, bool winograd)
{
    switch (element) {
    case Element::f64: return conv3x3_table<double, Doubles, Direct<Doubles>>();
    case Element::bf16: return conv3x3_table<Bf16, Floats>(winograd);
    default: return conv3x3_table<float, Floats>(winograd);
    }
}

UpsampleKernels upsample_kernels(Element element)
{
    switch (element) {
    case Element::f64: return upsample_table<Widened<double, Doubles>>();
    case Element::bf16: return upsample_table<Widened<Bf16, Floats>>();
    default: return upsample_table<Widened<float, Floats>>();
    }
}

} // namespace starlight::ops::portable
