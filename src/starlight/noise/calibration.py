"""Noise parameters of a camera, from its own frames: variance[DN^2] = a * signal[DN] + b.

The photon transfer method: shot noise makes the variance grow with the signal by a DN per
electron, read noise is what is left at zero. Points (signal, variance) come from the frames of a
burst, pixel by pixel, or from pairs of flat frames, block by block; the line is fitted robustly, so
flawed pixels and structure in a flat do not carry it away. What it finds is what
`profiles.CameraProfile` holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starlight.noise.portable import Float64

_BINS = 128
_LEAST_POINTS = 32
_ROUNDS = 50


@dataclass(frozen=True)
class NoisePoints:
    """Samples of a noise curve, float64 [M]: signal above black, variance, degrees of freedom."""

    signal: Float64
    variance: Float64
    degrees: Float64

    @classmethod
    def join(cls, sets: Sequence[NoisePoints]) -> NoisePoints:
        """All points of several sets."""
        columns = zip(*((each.signal, each.variance, each.degrees) for each in sets), strict=True)
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True)
class NoiseFit:
    """variance = a * signal + b, with the standard errors of both and the number of points.

    a in DN per electron, b in DN^2 (read noise and rounding).
    """

    a: float
    b: float
    a_error: float
    b_error: float
    points: int

    @property
    def electrons_per_dn(self) -> float:
        """1 / a."""
        return 1.0 / self.a

    @property
    def read_noise_electrons(self) -> float:
        """sqrt(b) / a; 0 where the fit puts b below zero."""
        return float(np.sqrt(max(self.b, 0.0))) / self.a


def fit_noise(points: NoisePoints) -> NoiseFit:
    """The line through the points.

    Points of like signal form up to 128 bins. A bin is its median variance, brought from the
    median to the mean of a scaled chi-square distribution (Wilson and Hilferty, 1931); bins are
    weighted by degrees of freedom over the squared variance that the line itself predicts there.
    Raises ValueError for fewer than 32 points, signals that are all alike, or a variance that does
    not grow with the signal.
    """
    usable = np.isfinite(points.signal) & np.isfinite(points.variance) & (points.degrees > 0)
    signal, variance, degrees = (
        array[usable] for array in (points.signal, points.variance, points.degrees)
    )
    if signal.size < _LEAST_POINTS:
        raise ValueError(f"noise fit: points must be at least {_LEAST_POINTS}, got {signal.size}")
    # Wilson-Hilferty: median / mean of chi-square with k degrees is about (1 - 2 / 9k)^3.
    variance = variance / (1.0 - 2.0 / (9.0 * degrees)) ** 3
    order = np.array_split(np.argsort(signal, kind="stable"), min(_BINS, signal.size // 8))
    x = np.array([np.median(signal[members]) for members in order])
    y = np.array([np.median(variance[members]) for members in order])
    # A median of m values is worth 2 / pi of their mean.
    worth = np.array([degrees[members].sum() for members in order]) / np.pi
    if np.ptp(x) <= 1e-9 * max(1.0, float(np.abs(x).max())):
        raise ValueError(f"noise fit: signals must differ, got {x[0]:g} alone")
    predicted = np.full_like(y, float(np.mean(y)))
    a = b = 0.0
    covariance = np.zeros((2, 2))
    for _ in range(_ROUNDS):
        weight = worth / np.maximum(predicted, 1e-12) ** 2
        design = np.stack([x, np.ones_like(x)], axis=1)
        covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
        former = a, b
        a, b = (covariance @ (design.T @ (weight * y))).tolist()
        # The floor keeps a bin with no noise at all from taking all the weight.
        predicted = np.maximum(a * x + b, 1e-3 * float(np.mean(y)))
        if np.allclose((a, b), former, rtol=1e-9, atol=0.0):
            break
    if a <= 0.0:
        raise ValueError(f"noise fit: variance must grow with the signal, got a slope of {a:g}")
    errors = np.sqrt(np.diag(covariance))
    return NoiseFit(a, b, float(errors[0]), float(errors[1]), int(signal.size))


def flat_pair_points(
    first: NDArray[Any],
    second: NDArray[Any],
    black: float,
    white: float = float("inf"),
    block: int = 16,
) -> NoisePoints:
    """Points of two frames of the same evenly lit scene, one per block x block pixels.

    first, second: [H, W], one plane of one colour; black: reading without light; white: blocks
    with a sample at or above it are left out. Half the variance of the difference is that of one
    frame: what the flat itself holds (dust, vignetting, fixed pattern) cancels. The second is first
    brought to the light of the first. Raises ValueError when shapes differ or hold no block.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"noise fit: flat pair must be two planes of equal shape, got {list(first.shape)} "
            f"and {list(second.shape)}"
        )
    height, width = (side // block for side in first.shape)
    if height * width == 0:
        raise ValueError(
            f"noise fit: flat frames must be at least {block} x {block}, got {list(first.shape)}"
        )

    def blocks(image: NDArray[Any]) -> Float64:
        cut = image[: height * block, : width * block].astype(np.float64)
        split = cut.reshape(height, block, width, block).transpose(0, 2, 1, 3)
        return split.reshape(height * width, block * block)

    one, two = blocks(first), blocks(second)
    whole = (one.max(1) < white) & (two.max(1) < white)
    one, two = one[whole] - black, two[whole] - black
    if one.size and two.mean() > 0.0 and one.mean() > 0.0:
        two = two * (one.mean() / two.mean())
    signal = 0.5 * (one.mean(1) + two.mean(1))
    variance = 0.5 * (one - two).var(1, ddof=1)
    return NoisePoints(signal, variance, np.full(signal.shape, block * block - 1.0))
