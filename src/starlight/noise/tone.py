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


# srgb: IEC 61966-2-1. gamma22: the plain power 2.2, without a foot.
TONE_CURVES = {
    curve.name: curve
    for curve in (
        ToneCurve("srgb", gamma=2.4, offset=0.055, slope=12.92, knee=0.04045),
        ToneCurve("gamma22", gamma=2.2, offset=0.0, slope=1.0, knee=0.0),
    )
}


def tone_curve(name: str) -> ToneCurve:
    """The curve of that name. Raises ValueError when there is none."""
    if name not in TONE_CURVES:
        raise ValueError(f"noise: tone curve must be one of {', '.join(TONE_CURVES)}, got {name!r}")
    return TONE_CURVES[name]
