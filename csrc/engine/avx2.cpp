#include "avx2.h"
#include "isa.h"

namespace starlight::engine
{
namespace
{

// Bytes as 16-bit numbers, the even ones and the odd ones: two vpmaddwd, each sum below 2^17.
struct Widened {
    struct Weights {
        __m256i even, odd;
    };
    using Input = Weights;
    static constexpr int PIXELS = 4;

    static Weights weights(__m256i bytes)
    {
        return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
    }
    static Input input(__m256i bytes)
    {
        return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16(bytes, 8)};
    }
    static __m256i dot(__m256i acc, Input x, Weights w)
    {
        const __m256i sum =
            _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
        return _mm256_add_epi32(acc, sum);
    }
    static __m256i dot_wide(__m256i acc, __m256i x, __m256i w)
    {
        return _mm256_add_epi32(acc, _mm256_madd_epi16(x, w));
    }
};

} // namespace

const Kernels avx2_kernels = {"avx2", ZERO, false, any_row<Avx2<Widened>>,
                              scaled_row<Avx2<Widened>>};

} // namespace starlight::engine
