/* The integer contract's arithmetic: header-only C99, also C++17, CUDA and HLS.
 *
 * Shared by the firmware runtime, the host engine, the CUDA kernels and the synthesised layers;
 * quant/intmath.py is the independent witness. No undefined behaviour for any argument within the
 * stated ranges, and nothing implementation-defined: a negative number is never shifted.
 */
#ifndef SL_INTMATH_H
#define SL_INTMATH_H

#include <stdint.h>

#include "contract_constants.h"

/* A toolchain may give its own qualifiers with -DSL_INLINE=... */
#ifndef SL_INLINE
#if defined(__CUDACC__)
#define SL_INLINE static __host__ __device__ __forceinline__
#else
#define SL_INLINE static inline
#endif
#endif

/* 2^bits, bits in 0..30. */
SL_INLINE int32_t sl_power_of_two(unsigned bits)
{
    return (int32_t)(UINT32_C(1) << bits);
}

/* value * 2^bits, bits in 0..30; the product must lie within int32. */
SL_INLINE int32_t sl_multiply_2k(int32_t value, unsigned bits)
{
    return value * sl_power_of_two(bits);
}

/* floor(value / 2^shift), any value, shift in 0..31. For a negative value, ~value = -value - 1 is
 * not negative, and floor(value / 2^s) = -floor((-value - 1) / 2^s) - 1 = ~(~value >> s). */
SL_INLINE int32_t sl_floor_shift32(int32_t value, unsigned shift)
{
    return value < 0 ? ~(~value >> shift) : value >> shift;
}

/* floor(value / 2^shift), any value, shift in 0..63. */
SL_INLINE int64_t sl_floor_shift64(int64_t value, unsigned shift)
{
    return value < 0 ? ~(~value >> shift) : value >> shift;
}

/* floor((acc + 2^(shift-1)) / 2^shift), any acc, shift in 1..31: to nearest, ties toward +infinity.
 * Halving twice needs no wider sum: floor((floor(acc / 2^(s-1)) + 1) / 2), written so that the
 * +1 cannot overflow: t - floor(t / 2) = ceil(t / 2) = floor((t + 1) / 2). */
SL_INLINE int32_t sl_rounded_shift(int32_t acc, unsigned shift)
{
    const int32_t twice = sl_floor_shift32(acc, shift - 1u);
    return twice - sl_floor_shift32(twice, 1u);
}

SL_INLINE int32_t sl_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : (value > high ? high : value);
}

SL_INLINE int64_t sl_clamp64(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : (value > high ? high : value);
}

/* -128..127 */
SL_INLINE int8_t sl_saturate_i8(int32_t value)
{
    return (int8_t)sl_clamp(value, SL_ACTIVATION_MIN, SL_ACTIVATION_MAX);
}

/* 0..127: saturation and ReLU in one clamp. */
SL_INLINE int8_t sl_saturate_relu_i8(int32_t value)
{
    return (int8_t)sl_clamp(value, 0, SL_ACTIVATION_MAX);
}

/* 0..255 */
SL_INLINE uint8_t sl_saturate_u8(int32_t value)
{
    return (uint8_t)sl_clamp(value, 0, SL_PIXEL_MAX);
}

/* sat8(floor((acc + 2^(shift-1)) / 2^shift)), any acc, shift in 1..31. */
SL_INLINE int8_t sl_requantise(int32_t acc, unsigned shift)
{
    return sl_saturate_i8(sl_rounded_shift(acc, shift));
}

/* The same with the clamp's lower end at 0. */
SL_INLINE int8_t sl_requantise_relu(int32_t acc, unsigned shift)
{
    return sl_saturate_relu_i8(sl_rounded_shift(acc, shift));
}

/* sat_u8(pixel - floor((acc + 2^(shift-1)) / 2^shift)), any acc, shift in 1..31. */
SL_INLINE uint8_t sl_tail_pixel(uint8_t pixel, int32_t acc, unsigned shift)
{
    /* |rounded_shift| <= 2^30, so the difference cannot overflow. */
    return sl_saturate_u8((int32_t)pixel - sl_rounded_shift(acc, shift));
}

/* acc + q * 2^shift, q of 8 or 16 bits, shift in 0..20; the accumulator proof keeps product and sum
 * within int32. */
SL_INLINE int32_t sl_join(int32_t acc, int32_t q, unsigned shift)
{
    return acc + sl_multiply_2k(q, shift);
}

/* Multiplier arithmetic: floor((acc * multiplier + q * join_multiplier + 2^(shift-1)) / 2^shift),
 * to nearest, ties toward +infinity, one rounding. Any acc, q of 8 or 16 bits, both multipliers in
 * 0..2^20, shift in 1..40. Nothing here reaches 2^52, so that float64 follows exactly:
 * 2^31 * 2^20 + 2^15 * 2^20 + 2^39. Dyadic arithmetic is multiplier 1, join_multiplier 2^j. */
SL_INLINE int64_t sl_rounded_product(int32_t acc, uint32_t multiplier, int32_t q,
                                     uint32_t join_multiplier, unsigned shift)
{
    const int64_t sum = (int64_t)acc * (int64_t)multiplier + (int64_t)q * (int64_t)join_multiplier;
    return sl_floor_shift64(sum + (int64_t)(UINT64_C(1) << (shift - 1u)), shift);
}

/* sat_u8(pixel - floor((acc * multiplier + 2^(shift-1)) / 2^shift)) */
SL_INLINE uint8_t sl_multiplier_tail_pixel(uint8_t pixel, int32_t acc, uint32_t multiplier,
                                           unsigned shift)
{
    const int64_t residual = sl_rounded_product(acc, multiplier, 0, 0, shift);
    return (uint8_t)sl_clamp64((int64_t)pixel - residual, 0, SL_PIXEL_MAX);
}

/* pixel - 128, the image at exponent 7. */
SL_INLINE int8_t sl_quantise_pixel(uint8_t pixel)
{
    return (int8_t)((int32_t)pixel - SL_IMAGE_OFFSET);
}

#endif
