// The table of kernels.h from the templates.
#pragma once

#include "conv3x3_kernels.h"
#include "dense_backward.h"
#include "dense_layered.h"
#include "kernels.h"
#include "strided_conv_kernels.h"
#include "strided_layered.h"
#include "strided_winograd.h"
#include "upsample_kernels.h"

namespace starlight::ops::STARLIGHT_ISA
{

template <class T, class L> DenseBlockKernels direct_dense_block_table()
{
    using Convolution = Direct<L>;
    return {dense_packed_bytes<Convolution, L>,
            dense_pack<Convolution, L>,
            dense_forward_bytes<T, L, Convolution>,
            dense_forward<T, L, Convolution>,
            nullptr,
            nullptr};
}

template <class T, class L> DenseBlockKernels dense_block_table(bool winograd)
{
    using Convolution = Winograd<L>;
    if (!winograd) return direct_dense_block_table<T, L>();
    return {dense_packed_bytes<Convolution, L>,
            dense_pack<Convolution, L>,
            dense_forward_bytes<T, L, Convolution>,
            dense_forward<T, L, Convolution>,
            dense_backward_bytes<T, L>,
            dense_backward<T, L>};
}

template <class D> DenseLayersKernels dense_layers_table()
{
    return {dense_layered_forward_bytes<D>, dense_layered_forward<D>,
            dense_layered_backward_bytes<D>, dense_layered_backward<D>};
}

template <class T, class L> StridedConvKernels direct_strided_conv_table()
{
    return {strided_packed_bytes<L, Direct<L>>, strided_pack<L, Direct<L>>,
            strided_forward_bytes<T, L>,        strided_forward<T, L>,
            strided_backward_bytes<T, L>,       strided_backward<T, L>};
}

template <class T, class L> StridedConvKernels strided_conv_table(bool winograd)
{
    if (!winograd) return direct_strided_conv_table<T, L>();
    return {strided_packed_bytes<L, Polyphase<L>>, strided_pack<L, Polyphase<L>>,
            polyphase_forward_bytes<T, L>,         polyphase_forward<T, L>,
            strided_backward_bytes<T, L>,          strided_backward<T, L>};
}

template <class D> StridedConvKernels strided_layers_table()
{
    return {strided_layered_packed_bytes<D>,   strided_layered_pack<D>,
            strided_layered_forward_bytes<D>,  strided_layered_forward<D>,
            strided_layered_backward_bytes<D>, strided_layered_backward<D>};
}

template <class T, class L, class Convolution> Conv3x3Kernels conv3x3_table()
{
    return {conv_packed_bytes<L, Convolution>, conv_pack<L, Convolution>,
            conv_forward_bytes<T, L, Convolution>, conv_forward<T, L, Convolution>};
}

template <class T, class L> Conv3x3Kernels conv3x3_table(bool winograd)
{
    return winograd ? conv3x3_table<T, L, Winograd<L>>() : conv3x3_table<T, L, Direct<L>>();
}

template <class D> UpsampleKernels upsample_table()
{
    return {upsample_packed_bytes<D>, upsample_pack<D>,           upsample_forward_bytes<D>,
            upsample_forward<D>,      upsample_backward_bytes<D>, upsample_backward<D>};
}

} // namespace starlight::ops::STARLIGHT_ISA
