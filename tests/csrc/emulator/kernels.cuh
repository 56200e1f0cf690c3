// Small kernels that are right, each for one thing that the emulator does or counts.
#pragma once

#include "launch.h"

namespace kernels
{

using namespace starlight::cuda;

// ---- one access

template <class V> __global__ void copy(const V *x, V *out, int64_t count)
{
    const int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    st_if(out + index, ld_const_if<V>(x + index, index < count), index < count);
}

// Lane i reads x[stride * i].
__global__ void gather(const float *x, float *out, int64_t stride)
{
    const int lane = static_cast<int>(threadIdx.x);
    st(out + lane, ld_const<float>(x + lane * stride));
}

// Lane i touches 16 bytes at row i of a tile whose rows are `pitch` floats.
__global__ void shared_rows(float *out, int64_t pitch)
{
    float *tile = reinterpret_cast<float *>(dynamic_shared());
    const int lane = static_cast<int>(threadIdx.x);
    st(tile + lane * pitch, make_float4(1, 2, 3, static_cast<float>(lane)));
    __syncthreads();
    st(out + lane, ld<float4>(tile + lane * pitch).w);
}

// Every lane reads the same word, then lane i reads word stride * i.
__global__ void shared_words(float *out, int64_t stride)
{
    SHARED(float, words, [32 * 32]);
    const int lane = static_cast<int>(threadIdx.x);
    for (int index = lane; index < 32 * 32; index += 32)
        st(&words[index], static_cast<float>(index));
    __syncwarp();
    const float first = ld<float>(&words[0]);
    st(out + lane, first + ld<float>(&words[lane * stride]));
}

// ---- the block

__global__ void indices(int *out)
{
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int threads = blockDim.x * blockDim.y * blockDim.z;
    st(out + block * threads + thread, 1000 * block + thread);
}

template <int THREADS>
__global__ __launch_bounds__(THREADS) void block_sum(const float *x, float *out)
{
    SHARED(float, partial, [THREADS]);
    const int thread = static_cast<int>(threadIdx.x);
    st(&partial[thread], ld_const<float>(x + int64_t{blockIdx.x} * THREADS + thread));
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half)
            st(&partial[thread], ld<float>(&partial[thread]) + ld<float>(&partial[thread + half]));
    }
    if (thread == 0) st(out + blockIdx.x, ld<float>(&partial[0]));
}

__global__ void block_votes(const int *x, int *out)
{
    const int thread = static_cast<int>(threadIdx.x), value = ld_const<int>(x + thread);
    const int any = __syncthreads_or(value > 2), all = __syncthreads_and(value > 2);
    const int count = __syncthreads_count(value > 2);
    if (thread == 0) st(out, make_int4(any, all, count, 0));
}

__global__ void histogram(const int *x, int64_t count, unsigned *bins)
{
    SHARED(unsigned, own, [16]);
    if (threadIdx.x < 16) st(&own[threadIdx.x], 0u);
    __syncthreads();
    for (int64_t index = threadIdx.x; index < count; index += blockDim.x)
        atomicAdd(&own[ld_const<int>(x + index)], 1u);
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], ld<unsigned>(&own[threadIdx.x]));
}

// ---- the warp

__global__ void shuffles(const int *x, int *out)
{
    const int lane = static_cast<int>(threadIdx.x), value = ld_const<int>(x + lane);
    const unsigned all = 0xffffffff;
    const int results[] = {__shfl_sync(all, value, 5), __shfl_sync(all, value, lane + 1, 8),
                           __shfl_xor_sync(all, value, 3), __shfl_up_sync(all, value, 2),
                           __shfl_down_sync(all, value, 4, 16)};
    for (int kind = 0; kind < 5; kind++)
        st(out + 32 * kind + lane, results[kind]);
    double wide = __shfl_xor_sync(all, 0.5 * value, 16);
    st(out + 160 + lane, static_cast<int>(2 * wide));
    // Lanes 8..15 alone, while the others go on.
    int part = 0;
    if (lane / 8 == 1) part = __shfl_xor_sync(0xff00u, value, 7);
    st(out + 192 + lane, part);
}

__global__ void warp_votes(const int *x, unsigned *out)
{
    const int lane = static_cast<int>(threadIdx.x), value = ld_const<int>(x + lane);
    const unsigned ballot = __ballot_sync(0xffffffff, value > 2);
    const int any = __any_sync(0xffffffff, value > 2), all = __all_sync(0xffffffff, value > 2);
    if (lane == 0)
        st(out, uint4{ballot, static_cast<unsigned>(any), static_cast<unsigned>(all), 0});
}

// ---- copies and matrices

// Three tiles in flight: out[tile] is the sum of what the other lanes copied.
__global__ void pipeline(const float *x, float *out, int64_t tiles)
{
    constexpr int STAGES = 3;
    SHARED(float, stages, [STAGES][128]);
    const int lane = static_cast<int>(threadIdx.x);
    const auto fetch = [&](int64_t tile) {
        cp_async16(&stages[tile % STAGES][4 * lane], x + tile * 128 + 4 * lane, tile < tiles);
        cp_async_commit();
    };
    fetch(0);
    fetch(1);
    for (int64_t tile = 0; tile < tiles; tile++) {
        cp_async_wait<1>();
        __syncthreads();
        fetch(tile + 2);
        float sum = 0;
        for (int index = lane; index < 128; index += 32)
            sum += ld<float>(&stages[tile % STAGES][index]);
        st(out + tile * 32 + lane, sum);
    }
    cp_async_wait<0>();
}

// x: 32 rows of 8 values; out[lane][0..3] plain, [4..7] transposed.
__global__ void matrices(const uint16_t *x, uint32_t *out)
{
    SHARED(uint16_t, tile, [32][8]);
    const int lane = static_cast<int>(threadIdx.x);
    st(&tile[lane][0], ld_const<uint4>(x + 8 * lane));
    __syncwarp();
    uint32_t plain[4], turned[4];
    ldmatrix(plain, &tile[lane][0]);
    ldmatrix_transposed(turned, &tile[lane][0]);
    for (int r = 0; r < 4; r++) {
        st(out + 8 * lane + r, plain[r]);
        st(out + 8 * lane + 4 + r, turned[r]);
    }
}

// A lane's registers as they lie in memory: a[lane][A], b[lane][B], d[lane][4].
template <int A, int B, class Sum> struct Registers {
    uint32_t a[A], b[B];
    Sum d[4];

    __device__ Registers(const uint32_t *a_in, const uint32_t *b_in, const Sum *d_in)
    {
        const int lane = static_cast<int>(threadIdx.x);
        for (int r = 0; r < A; r++)
            a[r] = ld_const<uint32_t>(a_in + A * lane + r);
        for (int r = 0; r < B; r++)
            b[r] = ld_const<uint32_t>(b_in + B * lane + r);
        for (int r = 0; r < 4; r++)
            d[r] = ld<Sum>(d_in + 4 * lane + r);
    }

    __device__ void store(Sum *d_out) const
    {
        for (int r = 0; r < 4; r++)
            st(d_out + 4 * static_cast<int>(threadIdx.x) + r, d[r]);
    }
};

template <class T> __global__ void mma_k16(const uint32_t *a, const uint32_t *b, float *d)
{
    Registers<4, 2, float> own(a, b, d);
    mma_16x8x16<T>(own.d, own.a, own.b);
    own.store(d);
}

template <class T> __global__ void mma_k8(const uint32_t *a, const uint32_t *b, float *d)
{
    Registers<2, 1, float> own(a, b, d);
    mma_16x8x8<T>(own.d, own.a, own.b);
    own.store(d);
}

__global__ void mma_tf32(const uint32_t *a, const uint32_t *b, float *d)
{
    Registers<4, 2, float> own(a, b, d);
    mma_16x8x8_tf32(own.d, own.a, own.b);
    own.store(d);
}

__global__ void mma_s8_k32(const uint32_t *a, const uint32_t *b, int32_t *d)
{
    Registers<4, 2, int32_t> own(a, b, d);
    mma_16x8x32_s8(own.d, own.a, own.b);
    own.store(d);
}

__global__ void mma_s8_k16(const uint32_t *a, const uint32_t *b, int32_t *d)
{
    Registers<2, 1, int32_t> own(a, b, d);
    mma_16x8x16_s8(own.d, own.a, own.b);
    own.store(d);
}

// ---- numbers

template <class T> __global__ void convert(const float *x, T *narrow, float *wide, int64_t count)
{
    for (int64_t index = threadIdx.x; index < count; index += blockDim.x) {
        const T value = from_float<T>(ld_const<float>(x + index));
        st(narrow + index, value);
        st(wide + index, to_float(value));
    }
}

__global__ void to_tf32_bits(const float *x, uint32_t *out, int64_t count)
{
    for (int64_t index = threadIdx.x; index < count; index += blockDim.x)
        st(out + index, to_tf32(ld_const<float>(x + index)));
}

// ---- a program of accesses, to be judged

constexpr int CELLS = 4;

// program[step][thread of the grid]: 0 nothing, 1 + cell read, 1 + CELLS + cell write; then the
// whole block does syncs[step]: 0 nothing, 1 __syncwarp, 2 __syncthreads, 3 a shuffle.
template <bool SHARED_CELLS>
__global__ void accesses(const int *program, const int *syncs, int64_t steps, int *global_cells)
{
    SHARED(int, shared_cells, [CELLS]);
    int *cells = SHARED_CELLS ? &shared_cells[0] : global_cells;
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (SHARED_CELLS) {
        if (threadIdx.x < CELLS) st(&shared_cells[threadIdx.x], 0);
        __syncthreads();
    }
    int sum = 0;
    for (int64_t step = 0; step < steps; step++) {
        const int access = ld_const<int>(program + step * threads + thread);
        if (access > CELLS)
            st(&cells[access - 1 - CELLS], sum);
        else if (access > 0)
            sum += ld<int>(&cells[access - 1]);
        const int sync = ld_const<int>(syncs + step);
        if (sync == 1) __syncwarp();
        if (sync == 2) __syncthreads();
        if (sync == 3) sum += __shfl_xor_sync(0xffffffff, sum, 1);
    }
}

} // namespace kernels
