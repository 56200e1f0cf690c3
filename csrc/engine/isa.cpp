#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace starlight::engine
{
namespace
{

#if defined(__x86_64__)
// GCC 12's __builtin_cpu_supports does not know AVX-VNNI: CPUID leaf 7.1, bit 4 of EAX.
bool has_avx_vnni()
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
}
#elif defined(__aarch64__)
bool has_dot_product()
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return true; // every other system on this architecture asks for it
#endif
}
#endif

} // namespace

int runnable_kernels(const Kernels *found[KERNELS_MAX])
{
    int count = 0;
#if defined(__x86_64__)
    // These also ask whether the system saves the wide registers.
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        found[count++] = &avx512_vnni_kernels;
    if (__builtin_cpu_supports("avx2")) {
        if (has_avx_vnni()) found[count++] = &avx_vnni_kernels;
        found[count++] = &avx2_kernels;
    }
#elif defined(__aarch64__)
    if (has_dot_product()) found[count++] = &neon_dot_kernels;
#endif
    found[count++] = &portable_kernels;
    return count;
}

} // namespace starlight::engine
