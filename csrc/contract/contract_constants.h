/* Generated from quant/contract.py by `python -m quant.contract_header`: do not edit. */
#ifndef SL_CONTRACT_CONSTANTS_H
#define SL_CONTRACT_CONSTANTS_H

#define SL_ARITHMETIC_VERSION 1
#define SL_ARITHMETIC "dyadic"
#define SL_REQUANTISATION "sat8(floor((acc + 2^(s-1)) / 2^s))"
#define SL_TAIL_REQUANTISATION "sat_u8(pixel - floor((acc + 2^(s-1)) / 2^s))"
#define SL_MULTIPLIER_ARITHMETIC "multiplier"
#define SL_MULTIPLIER_REQUANTISATION "sat8(floor((acc*M + q_r*R + 2^(n-1)) / 2^n))"
#define SL_MULTIPLIER_TAIL_REQUANTISATION "sat_u8(pixel - floor((acc*M + 2^(n-1)) / 2^n))"
#define SL_ACTIVATION_BITS 8
#define SL_ACTIVATION_MIN (-128)
#define SL_ACTIVATION_MAX 127
#define SL_ACTIVATION_EXPONENT_MIN (-4)
#define SL_ACTIVATION_EXPONENT_MAX 12
#define SL_WIDE_ACTIVATION_BITS 16
#define SL_WIDE_ACTIVATION_MIN (-32768)
#define SL_WIDE_ACTIVATION_MAX 32767
#define SL_WIDE_ACTIVATION_EXPONENT_MAX 20
#define SL_WEIGHT_BITS 8
#define SL_WEIGHT_BITS_MIN 4
#define SL_WEIGHT_MIN (-127)
#define SL_WEIGHT_MAX 127
#define SL_WEIGHT_EXPONENT_MIN 0
#define SL_WEIGHT_EXPONENT_MAX 15
#define SL_BIAS_BITS 32
#define SL_ACCUMULATOR_BITS 32
#define SL_ACCUMULATOR_MAX 2147483647
#define SL_JOIN_SHIFT_MIN 0
#define SL_JOIN_SHIFT_MAX 20
#define SL_SHIFT_MIN 1
#define SL_SHIFT_MAX 24
#define SL_MULTIPLIER_MAX 1048576
#define SL_MULTIPLIER_SHIFT_MIN 1
#define SL_MULTIPLIER_SHIFT_MAX 40
#define SL_IMAGE_CHANNELS 3
#define SL_IMAGE_OFFSET 128
#define SL_IMAGE_EXPONENT 7
#define SL_PIXEL_MAX 255
#define SL_LEVELS_MAX 6

#define SL_OP_CONV3X3 1
#define SL_OP_CONV3X3_STRIDE2 2
#define SL_OP_CONV1X1 3
#define SL_OP_UP 4
#define SL_OP_TAIL 5

#endif
