// What differs between the compilers that take a kernel: nvcc, NVRTC, and a host compiler against
// csrc/emulator. A .cuh includes this header and no other but csrc/contract; a .cu adds host code.
//
// Device code may use
//
//   CUDA's own words
//     __global__ __device__ __forceinline__ __launch_bounds__ __restrict__ #pragma unroll
//     threadIdx blockIdx blockDim gridDim
//     __syncthreads  __syncthreads_or _and _count  __syncwarp(mask)
//     __shfl_sync __shfl_xor_sync __shfl_up_sync __shfl_down_sync   of 4- and 8-byte types
//     __ballot_sync __any_sync __all_sync
//     atomicAdd (int, unsigned, float)  atomicMax atomicMin (int, unsigned)  atomicCAS (unsigned)
//     __dp4a __popc __ffs __clz __float_as_uint __uint_as_float fmaf fmaxf fminf min max rsqrtf
//     int8_t .. uint64_t size_t, uint2 uint4 int2 int4 float2 float4 with make_*
//
//   types             f16, bf16 (storage: two bytes), Packet<T, N> (N values, aligned as a whole)
//     float to_float(f16 | bf16 | float)      T from_float<T>(float), ties to even
//     uint32_t pack<T>(low, high)             float2 unpack<T>(uint32_t)
//     uint32_t to_tf32(float)                 ties away from zero
//
//   shared memory     SHARED(float, tile, [8][36]);       static, 16-byte aligned
//                     unsigned char *dynamic_shared()     128-byte aligned
//
//   global and shared memory are read and written by these alone, V of 1, 2, 4, 8 or 16 bytes,
//   aligned to its size; a plain p[i] is a fault in the emulator
//     V ld<V>(p)                st(p, v)
//     V ld_const<V>(p)          global memory that no one writes during the launch
//     V ld_if<V>(p, c)          zeros without c, V ld_const_if<V>(p, c), st_if(p, v, c);
//                               p may be any address without c
//   where lanes of a warp differ in whether they access, all call the _if form: a lane that skips
//   a call in a loop would blur which accesses make one transaction
//
//   asynchronous copies, global to shared; the data is there after the wait for the thread that
//   copied, after a barrier beyond it for others
//     cp_async<4 | 8 | 16>(shared, global, c = true)     zeros without c
//     cp_async16(shared, global, c = true)
//     cp_async_commit()         cp_async_wait<N>()       all but the latest N groups are done
//
//   tensor cores, called by whole warps, fragments in the layout of the PTX ISA; d += a b
//     ldmatrix(uint32_t (&r)[1 | 2 | 4], row)            8x8 matrices of 2-byte values, `row` is
//     ldmatrix_transposed(r, row)                        shared, 16-byte aligned: lane 8i + j
//                                                        points at row j of matrix i
//     mma_16x8x16<f16 | bf16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
//     mma_16x8x8<f16 | bf16>(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1])
//     mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
//     mma_16x8x32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
//     mma_16x8x16_s8(int32_t (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1])
//
// and not: lambdas with auto parameters (NVRTC), function-local statics, a warp operation after
// some of its lanes have ended.
//
// Host code may use, besides
//     Stream                                             cudaStream_t, or the emulator's device
//     launch({.name, .grid, .block, .shared_bytes, .stream}, kernel, arguments...)
//                                                        an empty grid launches nothing
//     set_zero(pointer, bytes, stream)
//     Limits limits(stream)                              of the current device
// which throw std::runtime_error.
#pragma once

#if defined(__CUDACC_RTC__) // before __CUDACC__: NVRTC defines both
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstddef>
#include <cstdint>
#endif

#if defined(__CUDACC__)
#define STARLIGHT_DEVICE __device__ __forceinline__
#else
#define STARLIGHT_DEVICE inline
#endif

namespace starlight::cuda
{

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

template <class T, int N> struct alignas(sizeof(T) * N) Packet {
    T values[N];

    STARLIGHT_DEVICE T &operator[](int index) { return values[index]; }
    STARLIGHT_DEVICE const T &operator[](int index) const { return values[index]; }
};

} // namespace starlight::cuda

#if defined(__CUDACC__)
#include "launch_device.h"
#if !defined(__CUDACC_RTC__)
#include "launch_host.h"
#endif
#else
#include "emulated_launch.h"
#endif
