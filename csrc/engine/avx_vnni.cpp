#include "avx2.h"
#include "isa.h"

namespace starlight::engine
{
namespace
{

struct Vnni {
    using Weights = __m256i;
    using Input = __m256i;
    static constexpr int PIXELS = 6;

    static Weights weights(__m256i bytes) { return bytes; }
    static Input input(__m256i bytes) { return bytes; }
    static __m256i dot(__m256i acc, Input x, Weights w)
    {
        return _mm256_dpbusd_avx_epi32(acc, x, w);
    }
    static __m256i dot_wide(__m256i acc, __m256i x, __m256i w)
    {
        return _mm256_dpwssd_avx_epi32(acc, x, w);
    }
};

} // namespace

const Kernels avx_vnni_kernels = {"avx_vnni", ZERO, false, any_row<Avx2<Vnni>>,
                                  scaled_row<Avx2<Vnni>>};

} // namespace starlight::engine
