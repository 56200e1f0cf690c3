// The kernels of every instruction set that this build holds.
#ifndef STARLIGHT_ENGINE_ISA_H
#define STARLIGHT_ENGINE_ISA_H

#include "kernels.h"

namespace starlight::engine
{

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx_vnni_kernels, avx512_vnni_kernels;
#elif defined(__aarch64__)
extern const Kernels neon_dot_kernels;
#endif

constexpr int KERNELS_MAX = 4;

// Those that run on this processor, the fastest first; returns how many.
int runnable_kernels(const Kernels *found[KERNELS_MAX]);

} // namespace starlight::engine

#endif
