"""The noise model to beat: independent Gaussians whose variance follows intensity and gain.

With two knots the variance is a x + b at every calibrated gain, the Poisson-Gaussian model in the
space of the images, and between gains it is interpolated. With more knots it is a noise level
function: any dependence on intensity, still without correlation in space or between channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Image = NDArray[np.floating[Any]]
Gains = tuple[float, float]

_BINS = 256
_GAINS_PER_OCTAVE = 6
_VARIANCE_MIN = 1e-8


@dataclass(frozen=True)
class VarianceModel:
    """Variance at knots of intensity for each calibrated gain.

    gains: [G, 2], analog and digital; variances: [G, C, K] at intensities 0, 1/(K-1) .. 1, white
    = 1. Between knots linear in intensity. Between gains the logarithm of the variance is a linear
    function of the logarithms of the gains plus linear radial basis functions: exact at the
    calibrated gains, and everywhere for a variance that is a product of powers of the gains.
    Directions in which the calibrated gains do not differ are without influence.
    """

    gains: NDArray[np.float64]
    variances: NDArray[np.float64]

    @classmethod
    def fit(cls, pairs: Iterable[tuple[Gains, Image, Image]], knots: int = 2) -> VarianceModel:
        """Calibrate on ((analog gain, digital gain), truth, noise image), images white = 1.

        Gains closer than a sixth of an octave are joined, at their mean in octaves: where exposure
        is corrected hardly two are equal. Then least squares per gain and channel of the mean
        squared residual in 256 bins of intensity, each weighted by its samples over its squared
        expectation. Raises ValueError without a pair or with fewer than two knots.
        """
        if knots < 2:
            raise ValueError(f"variance model: knots must be at least 2, got {knots}")
        joined: dict[tuple[int, int], list[Gains]] = {}
        sums: dict[tuple[int, int], NDArray[np.float64]] = {}
        for gains, truth, noisy in pairs:
            analog, digital = (round(_GAINS_PER_OCTAVE * math.log2(gain)) for gain in gains)
            found = _moments(truth, noisy - truth)
            sums[analog, digital] = sums.get((analog, digital), 0.0) + found
            joined.setdefault((analog, digital), []).append(gains)
        if not sums:
            raise ValueError("variance model: pairs must be at least one, got none")
        ordered = sorted(sums)
        means = [np.exp(np.log(joined[key]).mean(0)) for key in ordered]
        variances = [[_fit_knots(channel, knots) for channel in sums[key]] for key in ordered]
        return cls(np.array(means), np.array(variances))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> VarianceModel:
        """The inverse of `to_json`. Raises ValueError for another form."""
        try:
            gains = np.array(value["gains"], np.float64)
            variances = np.array(value["variances"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"variance model: JSON must be complete, got {error}") from None
        if (
            gains.ndim != 2
            or variances.ndim != 3
            or gains.shape != (len(variances), 2)
            or not (gains.size and (gains > 0).all() and (variances > 0).all())
        ):
            raise ValueError(
                "variance model: gains [G, 2] and variances [G, C, K] must be positive, got "
                f"{list(gains.shape)} and {list(variances.shape)}"
            )
        return cls(gains, variances)

    def to_json(self) -> dict[str, Any]:
        return {"gains": self.gains.tolist(), "variances": self.variances.tolist()}

    def at(self, analog_gain: float, digital_gain: float) -> NDArray[np.float64]:
        """Variances [C, K] at the knots for a gain."""
        found = self._logarithms(np.log([[analog_gain, digital_gain]]))
        return np.exp(found).reshape(self.variances.shape[1:])

    @cached_property
    def _logarithms(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """Logarithms of the gains to those of the variances, [N, 2] to [N, C * K]."""
        logarithms = np.log(self.gains)
        centre = logarithms.mean(0)
        _, spread, directions = np.linalg.svd(logarithms - centre, full_matrices=False)
        rank = int((spread > 1e-9 * len(self.gains)).sum())
        axes = directions[: max(rank, 1)].T
        values = np.log(self.variances).reshape(len(self.gains), -1)
        found = RBFInterpolator(
            (logarithms - centre) @ axes, values, kernel="linear", degree=min(rank, 1)
        )
        return lambda gains: found((gains - centre) @ axes)

    def variance(self, truth: Image, analog_gain: float, digital_gain: float) -> Image:
        """Variance of every sample of a truth image [H, W, C]."""
        at_knots = self.at(analog_gain, digital_gain)
        knots = np.linspace(0.0, 1.0, at_knots.shape[1])
        channels = [np.interp(truth[..., c], knots, at_knots[c]) for c in range(truth.shape[2])]
        return np.stack(channels, axis=-1)

    def sample(
        self, truth: Image, analog_gain: float, digital_gain: float, generator: np.random.Generator
    ) -> Image:
        """A noise image for a truth image [H, W, C]: normal, unclipped, float64."""
        deviation = np.sqrt(self.variance(truth, analog_gain, digital_gain))
        return truth + deviation * generator.standard_normal(truth.shape)


def _moments(truth: Image, residual: Image) -> NDArray[np.float64]:
    """[C, 3, 256]: per bin of intensity the samples, the sum of truth, the sum of squares."""
    bins = np.clip((truth * (_BINS - 1) + 0.5).astype(np.int64), 0, _BINS - 1)
    return np.array(
        [
            [
                np.bincount(bins[..., c].ravel(), None, _BINS),
                np.bincount(bins[..., c].ravel(), truth[..., c].ravel(), _BINS),
                np.bincount(bins[..., c].ravel(), np.square(residual[..., c]).ravel(), _BINS),
            ]
            for c in range(truth.shape[2])
        ]
    )


def _fit_knots(moments: NDArray[np.float64], knots: int) -> NDArray[np.float64]:
    """Variance at equally spaced knots; a knot without data follows its neighbours."""
    count, truth, square = moments
    filled = count > 0
    x, y, n = truth[filled] / count[filled], square[filled] / count[filled], count[filled]
    position = np.clip(x, 0.0, 1.0) * (knots - 1)
    hats = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)))
    bends = np.diff(np.eye(knots), 2, axis=0) * 1e-3
    expected = np.full(len(y), max(float(np.average(y, weights=n)), _VARIANCE_MIN))
    solution = np.full(knots, expected[0])
    for _ in range(4):
        weight = np.sqrt(n / n.sum()) / expected
        scale = np.abs(weight).sum() / len(weight)
        left = np.concatenate([hats * weight[:, None], bends * scale])
        right = np.concatenate([y * weight, np.zeros(len(bends))])
        solution = np.maximum(np.linalg.lstsq(left, right, rcond=None)[0], _VARIANCE_MIN)
        expected = np.maximum(hats @ solution, _VARIANCE_MIN)
    return solution
