// f16 and bf16 by their bits, ties to even: the same on every host.
#include <bit>
#include <cstdint>

#include "runtime.h"

namespace starlight::emulator
{

float f16_to_float(uint16_t bits)
{
    const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31,
                   fraction = bits & 0x3ff;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f; // exact
    return sign != 0 ? -magnitude : magnitude;
}

uint16_t float_to_f16(float value)
{
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(0x7fff); // NaN as cvt writes it
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00); // 65520 and above
    if (magnitude < 0x38800000) { // below 2^-14: in steps of 2^-24, which adding 2^-1 rounds to
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    }
    const uint32_t odd = magnitude >> 13 & 1;
    return static_cast<uint16_t>(sign | (magnitude - (112u << 23) + 0xfff + odd) >> 13);
}

uint16_t float_to_bf16(float value)
{
    const auto bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff; // NaN as cvt writes it
    const uint32_t odd = bits >> 16 & 1;
    return static_cast<uint16_t>((bits + 0x7fff + odd) >> 16);
}

} // namespace starlight::emulator
