// launch.h for the host half of nvcc: the runtime API behind the names that the emulator has too.
#pragma once

#include <stdexcept>
#include <string>

#include <cuda_runtime.h>

namespace starlight::cuda
{

using Stream = cudaStream_t;

struct Launch {
    const char *name; // for messages
    dim3 grid, block;
    size_t shared_bytes; // dynamic
    Stream stream;
};

struct Limits {
    int multiprocessors;
    size_t shared_bytes_per_block;
};

inline void check(cudaError_t status, const char *what)
{
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": CUDA must succeed, got " +
                                 cudaGetErrorString(status));
}

template <class... Parameters, class... Arguments>
void launch(const Launch &shape, void (*kernel)(Parameters...), const Arguments &...arguments)
{
    if (size_t{shape.grid.x} * shape.grid.y * shape.grid.z == 0) return;
    constexpr size_t WITHOUT_ASKING = 48 << 10;
    if (shape.shared_bytes > WITHOUT_ASKING)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shape.shared_bytes)),
              shape.name);
    cudaLaunchConfig_t config{};
    config.gridDim = shape.grid;
    config.blockDim = shape.block;
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = shape.stream;
    check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), shape.name);
}

inline void set_zero(void *pointer, size_t bytes, Stream stream)
{
    check(cudaMemsetAsync(pointer, 0, bytes, stream), "set_zero");
}

inline Limits limits(Stream)
{
    int device = 0;
    check(cudaGetDevice(&device), "limits");
    const auto read = [device](cudaDeviceAttr attribute) {
        int value = 0;
        check(cudaDeviceGetAttribute(&value, attribute, device), "limits");
        return value;
    };
    return {read(cudaDevAttrMultiProcessorCount),
            static_cast<size_t>(read(cudaDevAttrMaxSharedMemoryPerBlockOptin))};
}

} // namespace starlight::cuda
