"""Elementary functions built from operations that IEEE 754 rounds correctly.

The C library's exp, log and pow differ between platforms in the last bit, and so would a noisy
image. Addition, multiplication, division, `frexp` and `ldexp` in float64 do not: what is computed
from them alone, one numpy operation at a time (no fused multiply-add), is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# ln 2 = _LN2_HIGH + _LN2_LOW; the high part has 33 bits, so that k * _LN2_HIGH is exact in exp.
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")

_LOG_TERMS = tuple(1.0 / (2 * k + 1) for k in reversed(range(11)))
_EXP_TERMS = tuple(
    1.0 / f
    for f in (6227020800, 479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1)
)


def horner(x: Float64, coefficients: Sequence[float]) -> Float64:
    """Polynomial in float64 by Horner's rule, coefficients from the highest power down."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total


def log(x: Float64) -> Float64:
    """Natural logarithm of positive finite float64, elementwise, to a few units in the last place.

    x = m 2^e with m in [0.707, 1.415); ln m = 2 atanh(f), f = (m - 1) / (m + 1), as its series.
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    power = np.where(low, exponent - 1, exponent).astype(np.float64)
    f = (mantissa - 1.0) / (mantissa + 1.0)
    return power * _LN2_HIGH + (2.0 * f * horner(f * f, _LOG_TERMS) + power * _LN2_LOW)


def exp(x: Float64) -> Float64:
    """Exponential of float64 in [-700, 700], elementwise, to a few units in the last place.

    x = k ln 2 + r with |r| <= ln(2) / 2; exp(r) is its Taylor polynomial of degree 13.
    """
    k = np.floor(x * (1.0 / (_LN2_HIGH + _LN2_LOW)) + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    return np.ldexp(1.0 + r * horner(r, _EXP_TERMS), k.astype(np.int32))


def power(x: Float64, exponent: float) -> Float64:
    """x ** exponent for x >= 0 and exponent > 0, elementwise float64; 0 at 0."""
    positive = x > 0.0
    return np.where(positive, exp(exponent * log(np.where(positive, x, 1.0))), 0.0)
