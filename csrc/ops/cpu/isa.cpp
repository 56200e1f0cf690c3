#include "../kernel.h"

namespace starlight::ops
{

bool isa_runs(Isa isa)
{
#if defined(__x86_64__) || defined(__i386__)
    switch (isa) {
    case Isa::portable: return true;
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512:
        return isa_runs(Isa::avx2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    }
    return false;
#else
    return isa == Isa::portable; // the others are compiled for no processor here
#endif
}

bool bf16_dots_run()
{
    return isa_runs(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
}

Isa best_isa()
{
    return isa_runs(Isa::avx512) ? Isa::avx512 : isa_runs(Isa::avx2) ? Isa::avx2 : Isa::portable;
}

} // namespace starlight::ops
