// Kernels with one mistake each, which `right` takes away: what the emulator must find, and must
// not find in the same kernel without it. x and out have 128 floats; 64 threads a block.
#pragma once

#include "launch.h"

namespace faults
{

using namespace starlight::cuda;

constexpr int THREADS = 64, COUNT = 128;

__device__ inline int thread_index()
{
    return static_cast<int>(threadIdx.x);
}

// Of 64 floats: every thread its own.
__device__ inline void fill(const float *x, float *tile)
{
    st(tile + thread_index(), ld_const<float>(x + thread_index()));
}

// ---- barriers

__global__ void barrier_in_half(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    if (right || thread_index() < THREADS / 2) __syncthreads();
    st(out + thread_index(), ld<float>(&tile[thread_index()]));
}

__global__ void barrier_after_return(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    if (!right && thread_index() == 40) return;
    __syncthreads();
    st(out + thread_index(), ld<float>(&tile[THREADS - 1 - thread_index()]));
}

__global__ void barrier_in_both_arms(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    if (right || thread_index() < THREADS / 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    st(out + thread_index(), ld<float>(&tile[thread_index()]));
}

__global__ void barrier_too_often(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    for (int turn = 0; turn < (right ? 2 : 1 + thread_index() / 32); turn++)
        __syncthreads();
    st(out + thread_index(), ld<float>(&tile[thread_index()]));
}

// ---- warps

__global__ void shuffle_in_half(const float *x, float *out, bool right)
{
    float value = ld_const<float>(x + thread_index());
    if (right || thread_index() % 32 < 16) value = __shfl_xor_sync(0xffffffff, value, 1);
    st(out + thread_index(), value);
}

__global__ void shuffle_from_outside(const float *x, float *out, bool right)
{
    float value = ld_const<float>(x + thread_index());
    if (thread_index() % 32 < 16) value = __shfl_sync(0xffff, value, right ? 15 : 16);
    st(out + thread_index(), value);
}

__global__ void mask_without_caller(const float *x, float *out, bool right)
{
    const float value = ld_const<float>(x + thread_index());
    st(out + thread_index(), __shfl_xor_sync(right ? 0xffffffff : 0xfffffffe, value, 1));
}

__global__ void mma_in_half(const float *x, float *out, bool right)
{
    float d[4] = {ld_const<float>(x + thread_index())};
    const uint32_t a[2] = {}, b[1] = {};
    if (right || thread_index() % 32 < 16) mma_16x8x8<f16>(d, a, b);
    st(out + thread_index(), d[0]);
}

// ---- bounds

__global__ void past_the_end(const float *x, float *out, bool right)
{
    const int64_t index = COUNT - THREADS + thread_index() + (right ? 0 : 1);
    st(out + thread_index(), ld_const<float>(x + index));
}

__global__ void before_the_start(const float *x, float *out, bool right)
{
    st(out + thread_index() - (right ? 0 : 1), ld_const<float>(x));
}

__global__ void last_bytes_past_the_end(const float *x, float *out, bool right)
{
    const int last = COUNT / 4 - 1;
    if (thread_index() == 0) st(out, ld_const<float4>(x + 4 * (right ? last : last + 1)));
}

// What a 32-bit index makes of a large image.
__global__ void overflown_index(const float *x, float *out, bool right)
{
    const uint32_t rows = 1u << 30;
    const int64_t wrapped = static_cast<int32_t>(rows * 2 + static_cast<uint32_t>(thread_index()));
    st(out + thread_index(), ld_const<float>(x + (right ? thread_index() : wrapped)));
}

__global__ void past_a_static_array(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    SHARED(float, other, [THREADS]);
    fill(x, tile);
    fill(x, other);
    __syncthreads();
    st(out + thread_index(), ld<float>(tile + thread_index() + (right ? 0 : 1)));
}

__global__ void past_dynamic_memory(const float *x, float *out, bool right)
{
    float *tile = reinterpret_cast<float *>(dynamic_shared()); // of THREADS
    st(tile + thread_index() + (right ? 0 : 4), ld_const<float>(x));
    st(out + thread_index(), 0.0f);
}

// ---- what was never written

__global__ void unwritten_shared(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    if (right || thread_index() != 7) fill(x, tile);
    __syncthreads();
    st(out + thread_index(), ld<float>(&tile[THREADS - 1 - thread_index()]));
}

__global__ void unwritten_global(const float *x, float *out, bool right)
{
    if (right) fill(x, out);
    st(out + thread_index(), 1 + ld<float>(out + thread_index()));
}

// ---- copies

__global__ void copy_without_wait(const float *x, float *out, bool right)
{
    SHARED(float, tile, [4 * THREADS]);
    cp_async16(&tile[4 * thread_index()], x + 4 * (thread_index() % 32));
    cp_async_commit();
    if (right) cp_async_wait<0>();
    __syncthreads();
    st(out + thread_index(), ld<float>(&tile[thread_index()]));
    cp_async_wait<0>();
}

__global__ void copy_waits_for_another(const float *x, float *out, bool right)
{
    SHARED(float, tile, [2][4 * THREADS]);
    for (int stage = 0; stage < 2; stage++) {
        cp_async16(&tile[stage][4 * thread_index()], x + 4 * (thread_index() % 32));
        cp_async_commit();
    }
    if (right)
        cp_async_wait<0>();
    else
        cp_async_wait<1>();
    __syncthreads();
    st(out + thread_index(), ld<float>(&tile[1][thread_index()]));
    cp_async_wait<0>();
}

__global__ void copy_without_commit(const float *x, float *out, bool right)
{
    SHARED(float, tile, [4 * THREADS]);
    cp_async16(&tile[4 * thread_index()], x + 4 * (thread_index() % 32));
    if (right) cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    st(out + thread_index(), ld<float>(&tile[thread_index()]));
    cp_async_commit();
    cp_async_wait<0>();
}

__global__ void wait_without_barrier(const float *x, float *out, bool right)
{
    SHARED(float, tile, [4 * THREADS]);
    cp_async16(&tile[4 * thread_index()], x + 4 * (thread_index() % 32));
    cp_async_commit();
    cp_async_wait<0>();
    if (right) __syncthreads();
    st(out + thread_index(), ld<float>(&tile[(4 * thread_index() + 4) % (4 * THREADS)]));
}

__global__ void copy_over_readers(const float *x, float *out, bool right)
{
    SHARED(float, tile, [4 * THREADS]);
    float sum = 0;
    for (int turn = 0; turn < 2; turn++) {
        cp_async16(&tile[4 * thread_index()], x + 4 * (thread_index() % 32));
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        sum += ld<float>(&tile[(4 * thread_index() + 4) % (4 * THREADS)]);
        if (right) __syncthreads();
    }
    st(out + thread_index(), sum);
}

__global__ void copy_never_waited_for(const float *x, float *out, bool right)
{
    SHARED(float, tile, [4 * THREADS]);
    cp_async16(&tile[4 * thread_index()], x + 4 * (thread_index() % 32));
    cp_async_commit();
    if (right) cp_async_wait<0>();
    st(out + thread_index(), 0.0f);
}

// ---- races

__global__ void read_without_barrier(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    if (right) __syncthreads();
    st(out + thread_index(), ld<float>(&tile[THREADS - 1 - thread_index()]));
}

__global__ void write_without_barrier(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    __syncthreads();
    const float value = ld<float>(&tile[THREADS - 1 - thread_index()]);
    if (right) __syncthreads();
    st(&tile[thread_index()], value);
    st(out + thread_index(), value);
}

__global__ void two_writers(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    st(&tile[right ? thread_index() : thread_index() / 2], ld_const<float>(x));
    st(out + thread_index(), 0.0f);
}

// A shuffle keeps lanes together, and orders no memory.
__global__ void shuffle_as_fence(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    float value = __shfl_xor_sync(0xffffffff, 1.0f, 1);
    if (right) __syncwarp();
    value += ld<float>(&tile[thread_index() ^ 1]);
    st(out + thread_index(), value);
}

__global__ void ldmatrix_without_barrier(const float *x, float *out, bool right)
{
    SHARED(float, tile, [4 * THREADS]);
    float *row = &tile[4 * thread_index()];
    st(row, ld_const<float4>(x + 4 * (thread_index() % 32)));
    if (right) __syncwarp();
    uint32_t r[4];
    ldmatrix(r, row); // its own row, of which every lane gets a part
    st(out + thread_index(), __uint_as_float(r[0]));
}

__global__ void syncwarp_between_warps(const float *x, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    fill(x, tile);
    if (right)
        __syncthreads();
    else
        __syncwarp();
    st(out + thread_index(), ld<float>(&tile[(thread_index() + 32) % THREADS]));
}

__global__ void global_without_barrier(const float *x, float *out, bool right)
{
    fill(x, out);
    if (right) __syncthreads();
    const float value = ld<float>(out + (thread_index() + 1) % THREADS);
    st(out + THREADS + thread_index(), value);
}

__global__ void atomic_and_plain(const float *x, float *out, bool right)
{
    SHARED(float, sum, [1]);
    if (thread_index() == 0) st(sum, 0.0f);
    __syncthreads();
    atomicAdd(sum, ld_const<float>(x + thread_index()));
    if (right) __syncthreads();
    st(out + thread_index(), ld<float>(sum));
}

// Two blocks.
__global__ void blocks_write_one_place(const float *x, float *out, bool right)
{
    const int first = right ? THREADS * static_cast<int>(blockIdx.x) : 0;
    st(out + first + thread_index(), ld_const<float>(x + thread_index()));
}

// Each block reads a neighbour's first value before or after that block has replaced it.
__global__ void halo_in_place(const float *x, float *out, bool right)
{
    const int first = THREADS * static_cast<int>(blockIdx.x), index = first + thread_index();
    float value = ld_const<float>(x + index);
    if (thread_index() == THREADS - 1 && !right) value += ld<float>(out + (index + 1) % COUNT);
    value += ld<float>(out + index);
    __syncthreads();
    st(out + index, value);
}

// ---- alignment, and memory that is for others

__global__ void misaligned_load(const float *x, float *out, bool right)
{
    if (thread_index() == 0) st(out, ld_const<float4>(x + (right ? 4 : 2)));
}

__global__ void misaligned_store(const float *x, float *out, bool right)
{
    st(out + 2 * thread_index() + (right ? 0 : 1), make_float2(0, ld_const<float>(x)));
}

__global__ void misaligned_copy(const float *x, float *out, bool right)
{
    SHARED(float, tile, [8]);
    if (thread_index() == 0) cp_async16(&tile[right ? 4 : 3], x);
    cp_async_commit();
    cp_async_wait<0>();
    st(out + thread_index(), 0.0f);
}

__global__ void misaligned_matrix(const float *x, float *out, bool right)
{
    SHARED(float, tile, [6 * THREADS]);
    const int pitch = right ? 4 : 5;
    for (int value = 0; value < pitch; value++)
        st(&tile[pitch * thread_index() + value], ld_const<float>(x));
    __syncwarp();
    uint32_t r[1];
    ldmatrix(r, &tile[pitch * thread_index()]);
    st(out + thread_index(), __uint_as_float(r[0]));
}

__global__ void write_to_input(const float *x, float *out, bool right)
{
    st((right ? out : const_cast<float *>(x)) + thread_index(), 0.0f);
}

__global__ void constant_that_changes(const float *x, float *out, bool right)
{
    fill(x, out);
    __syncthreads();
    const float *from = right ? x : out;
    st(out + THREADS + thread_index(), ld_const<float>(from + thread_index()));
}

__global__ void plain_global_read(const float *x, float *out, bool right)
{
    st(out + thread_index(), right ? ld_const<float>(x) : x[thread_index()]);
}

__global__ void plain_shared_write(const float *, float *out, bool right)
{
    SHARED(float, tile, [THREADS]);
    if (right)
        st(&tile[thread_index()], 1.0f);
    else
        tile[thread_index()] = 1;
    st(out + thread_index(), ld<float>(&tile[thread_index()]));
}

__device__ inline int deep(int depth)
{
    volatile int frame[256]; // more than registers hold
    frame[depth % 256] = depth;
    return depth == 0 ? frame[0] : deep(depth - 1) + frame[depth % 256];
}

__global__ void deep_stack(const float *, float *out, bool right)
{
    st(out + thread_index(), static_cast<float>(deep(right ? 10 : 1000)));
}

} // namespace faults
