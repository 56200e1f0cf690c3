"""The facts of the integer contract: widths, ranges, rounding, operation ids, versions.

This module is the one home of these numbers. `csrc/contract/contract_constants.h` is generated
from it (`python -m quant.contract_header`); everything else imports them. docs/NUMERICS.md explains
them.
"""

from enum import IntEnum
from typing import Final

ARITHMETIC_VERSION: Final = 1
ARITHMETIC: Final = "dyadic"
REQUANTISATION: Final = "sat8(floor((acc + 2^(s-1)) / 2^s))"
TAIL_REQUANTISATION: Final = "sat_u8(pixel - floor((acc + 2^(s-1)) / 2^s))"

# The other arithmetic: any real scale, approximated per output channel by M / 2^n.
MULTIPLIER_ARITHMETIC: Final = "multiplier"
MULTIPLIER_REQUANTISATION: Final = "sat8(floor((acc*M + q_r*R + 2^(n-1)) / 2^n))"
MULTIPLIER_TAIL_REQUANTISATION: Final = "sat_u8(pixel - floor((acc*M + 2^(n-1)) / 2^n))"
ARITHMETICS: Final = (ARITHMETIC, MULTIPLIER_ARITHMETIC)

# Activations: int8, zero point 0, value = q * 2^-e with one exponent e per buffer.
ACTIVATION_BITS: Final = 8
ACTIVATION_MIN: Final = -128
ACTIVATION_MAX: Final = 127
ACTIVATION_EXPONENT_MIN: Final = -4
ACTIVATION_EXPONENT_MAX: Final = 12

# Wide activations, where a buffer asks for them: int16.
WIDE_ACTIVATION_BITS: Final = 16
WIDE_ACTIVATION_MIN: Final = -(2**15)
WIDE_ACTIVATION_MAX: Final = 2**15 - 1
WIDE_ACTIVATION_EXPONENT_MAX: Final = 20

# Weights: int8 without -128, an exponent per output channel; of b bits where a layer asks for less,
# then within 2^(b-1) - 1 of zero. Biases: int32 at e_acc = e_x + e_w.
WEIGHT_BITS: Final = 8
WEIGHT_BITS_MIN: Final = 4
WEIGHT_MIN: Final = -127
WEIGHT_MAX: Final = 127
WEIGHT_EXPONENT_MIN: Final = 0
WEIGHT_EXPONENT_MAX: Final = 15
BIAS_BITS: Final = 32

# acc += q_r * 2^j joins a residual or skip; s is the one requantisation shift of a layer.
ACCUMULATOR_BITS: Final = 32
ACCUMULATOR_MAX: Final = 2**31 - 1
JOIN_SHIFT_MIN: Final = 0
JOIN_SHIFT_MAX: Final = 20
SHIFT_MIN: Final = 1
SHIFT_MAX: Final = 24

# multiplier: M and R in 0..2^20, n in 1..40. With |acc| < 2^31 and |q_r| <= 2^15 the numerator
# stays below 2^31 * 2^20 + 2^15 * 2^20 + 2^39 < 2^52, so float64 holds it exactly.
MULTIPLIER_MAX: Final = 2**20
MULTIPLIER_SHIFT_MIN: Final = 1
MULTIPLIER_SHIFT_MAX: Final = 40

# The image enters as q = pixel - 128 at exponent 7, so zero padding means mid-grey.
IMAGE_CHANNELS: Final = 3
IMAGE_OFFSET: Final = 128
IMAGE_EXPONENT: Final = 7
PIXEL_MAX: Final = 255

LEVELS_MAX: Final = 6


class Op(IntEnum):
    """Operations of a layer; the ids are part of the bundle format."""

    CONV3X3 = 1  # stride 1, zero padding 1
    CONV3X3_STRIDE2 = 2  # zero padding 1: output (y, x) is centred on input (2y, 2x)
    CONV1X1 = 3
    UP = 4  # 1x1 to 4C channels, pixel shuffle: channel 4c + 2dy + dx goes to (2y + dy, 2x + dx)
    TAIL = 5  # 3x3 stride 1 to three channels, subtracted from the image

    @property
    def kernel(self) -> int:
        return 1 if self in (Op.CONV1X1, Op.UP) else 3

    @property
    def stride(self) -> int:
        return 2 if self is Op.CONV3X3_STRIDE2 else 1


def activation_range(bits: int) -> tuple[int, int]:
    """(lowest, highest) integer of an activation of 8 or 16 bits."""
    return -(1 << bits - 1), (1 << bits - 1) - 1


def activation_exponents(bits: int) -> range:
    """The exponents that a buffer of 8 or 16 bits may have."""
    high = ACTIVATION_EXPONENT_MAX if bits == ACTIVATION_BITS else WIDE_ACTIVATION_EXPONENT_MAX
    return range(ACTIVATION_EXPONENT_MIN, high + 1)


def weight_limit(bits: int) -> int:
    """The largest |weight| of a layer of 4..8 bits."""
    return (1 << bits - 1) - 1


def formulas(arithmetic: str, *, wide: bool) -> dict[str, str]:
    """The arithmetic's roundings, as artefacts name them; `wide`: 16-bit buffers occur."""
    dyadic = arithmetic == ARITHMETIC
    layer = REQUANTISATION if dyadic else MULTIPLIER_REQUANTISATION
    found = {
        "requantisation": layer,
        "tail_requantisation": TAIL_REQUANTISATION if dyadic else MULTIPLIER_TAIL_REQUANTISATION,
    }
    if wide:
        found["requantisation_16"] = layer.replace("sat8", "sat16")
    return found
