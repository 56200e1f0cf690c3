"""Tone curves between linear light and the encoded image, both normalised to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from starlight.noise.portable import Float64, power


@dataclass(frozen=True)
class ToneCurve:
    """A power curve with a linear foot, extended to all reals as an odd function.

    encoded v, linear l, for v, l >= 0:
        l = v / slope                                for v <= knee
        l = ((v + offset) / (1 + offset)) ** gamma   for v >  knee
    The odd extension f(-x) = -f(x) carries negative values, which noise below black makes; above
    one the same formula goes on.
    """

    name: str
    gamma: float
    offset: float
    slope: float
    knee: float

    def to_linear(self, encoded: Float64) -> Float64:
        """Linear light of an encoded image; float64, any shape, any real value."""
        v = np.abs(encoded)
        curved = power((v + self.offset) / (1.0 + self.offset), self.gamma)
        return np.copysign(np.where(v <= self.knee, v / self.slope, curved), encoded)

    def to_encoded(self, linear: Float64) -> Float64:
        """Encoded image of linear light, the inverse of `to_linear`; float64, any shape."""
        light = np.abs(linear)
        curved = (1.0 + self.offset) * power(light, 1.0 / self.gamma) - self.offset
        straight = light <= self.knee / self.slope
        return np.copysign(np.where(straight, light * self.slope, curved), linear)


@dataclass(frozen=True)
class TabulatedCurve:
    """Points joined by straight lines, extended to all reals as an odd function.

    linear, encoded: both rise from 0 to 1; above one the last line goes on.
    """

    name: str
    linear: tuple[float, ...]
    encoded: tuple[float, ...]

    def to_linear(self, encoded: Float64) -> Float64:
        """Linear light of an encoded image; float64, any shape, any real value."""
        return _along(self.encoded, self.linear, encoded)

    def to_encoded(self, linear: Float64) -> Float64:
        """Encoded image of linear light, the inverse of `to_linear`; float64, any shape."""
        return _along(self.linear, self.encoded, linear)


def _along(xs: tuple[float, ...], ys: tuple[float, ...], values: Float64) -> Float64:
    """The line through (xs, ys) at values; below zero its mirror image."""
    x, y = np.array(xs), np.array(ys)
    size = np.abs(values)
    left = np.searchsorted(x[1:-1], size, side="right")
    return np.copysign(y[left] + (np.diff(y) / np.diff(x))[left] * (size - x[left]), values)


# libcamera's Raspberry Pi tuning of the IMX219, IMX290 and IMX477 (BSD-2-Clause), gamma_curve: 16
# bits, at steps of 1/64 up to 1/4, 1/32 up to 1/2 and 1/16 above.
_RASPBERRY_PI = (
    0, 5040, 9338, 12356, 15312, 18051, 20790, 23193, 25744, 27942, 30035, 32005, 33975, 35815,
    37600, 39168, 40642, 43379, 45749, 47753, 49621, 51253, 52698, 53796, 54876, 57012, 58656,
    59954, 61183, 62355, 63419, 64476, 65535,
)  # fmt: skip
_RASPBERRY_PI_LINEAR = (
    *(i / 64 for i in range(16)),
    *(i / 32 for i in range(8, 16)),
    *(i / 16 for i in range(8, 17)),
)

# srgb: IEC 61966-2-1. gamma22: the plain power 2.2, without a foot. raspberrypi: a
# camera's own, with a shoulder that compresses highlights.
TONE_CURVES: dict[str, ToneCurve | TabulatedCurve] = {
    curve.name: curve
    for curve in (
        ToneCurve("srgb", gamma=2.4, offset=0.055, slope=12.92, knee=0.04045),
        ToneCurve("gamma22", gamma=2.2, offset=0.0, slope=1.0, knee=0.0),
        TabulatedCurve(
            "raspberrypi", _RASPBERRY_PI_LINEAR, tuple(v / 65535 for v in _RASPBERRY_PI)
        ),
    )
}


def tone_curve(name: str) -> ToneCurve | TabulatedCurve:
    """The curve of that name. Raises ValueError when there is none."""
    if name not in TONE_CURVES:
        raise ValueError(f"noise: tone curve must be one of {', '.join(TONE_CURVES)}, got {name!r}")
    return TONE_CURVES[name]
