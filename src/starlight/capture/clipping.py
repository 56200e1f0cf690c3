"""Clipped samples of a burst: their replacement by the mode, or a censored-normal fit.

A sample at the clip says only that the light was there or beyond. Averaged as it is, it pulls the
mean inwards; the censored fit uses what it does say.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from starlight.bayer import Float64

Clipping = Literal["none", "mode", "censored"]
CLIPPINGS: tuple[str, ...] = get_args(Clipping)
_STEPS = 60


def modes(samples: NDArray[Any]) -> Float64:
    """The most frequent value of each column; values that tie are averaged.

    samples: integers [F, M]. Returns float64 [M].
    """
    ordered = np.sort(samples, axis=0)
    count, width = ordered.shape
    run = np.zeros(width, np.int64)
    best = np.zeros(width, np.int64)
    total = np.zeros(width)
    ties = np.zeros(width, np.int64)
    for index in range(count):
        row = ordered[index]
        run = np.where(row == ordered[index - 1], run + 1, 1) if index else run + 1
        last = row != ordered[index + 1] if index + 1 < count else np.ones(width, bool)
        better, equal = last & (run > best), last & (run == best)
        total = np.where(better, row, np.where(equal, total + row, total))
        ties = np.where(better, 1, ties + equal)
        best = np.where(better, run, best)
    return total / ties


def censored_means(
    count: Float64,
    total: Float64,
    squares: Float64,
    below: Float64,
    above: Float64,
    low: float,
    high: float,
) -> Float64:
    """Mean of the normal whose censored samples these are, by maximum likelihood; float64 [M].

    count, total, squares: number, sum and sum of squares of the samples inside (low, high).
    below, above: number of samples at or beyond either end. All float64 [M], at least two samples
    inside that differ.

    Newton's method on (1/s, m/s) in place of (m, s): there the log likelihood is concave (Olsen,
    Econometrica 46, 1978).
    """
    # Units of each column: centre and spread of what is inside, so that steps are of order one.
    centre = total / count
    spread = np.sqrt(np.maximum(squares / count - centre**2, 1e-12))
    left, right = (low - centre) / spread, (high - centre) / spread
    scale, shift = np.ones_like(centre), np.zeros_like(centre)

    def likelihood(scale: Float64, shift: Float64) -> Float64:
        # Sum over the inside of (scale x - shift)^2, where sum x = 0 and sum x^2 = count.
        inside = count * np.log(scale) - 0.5 * count * (scale**2 + shift**2)
        return (
            inside
            + below * log_ndtr(scale * left - shift)
            + above * log_ndtr(shift - scale * right)
        )

    current = likelihood(scale, shift)
    for _ in range(_STEPS):
        at_left, at_right = scale * left - shift, shift - scale * right
        ratio_left, ratio_right = _mills(at_left), _mills(at_right)
        curve_left = below * ratio_left * (ratio_left + at_left)
        curve_right = above * ratio_right * (ratio_right + at_right)
        slope_scale = (
            count / scale - count * scale + below * ratio_left * left - above * ratio_right * right
        )
        slope_shift = -count * shift - below * ratio_left + above * ratio_right
        h11 = count / scale**2 + count + curve_left * left**2 + curve_right * right**2
        h22 = count + curve_left + curve_right
        h12 = -(curve_left * left + curve_right * right)
        determinant = h11 * h22 - h12**2
        step_scale = (h22 * slope_scale - h12 * slope_shift) / determinant
        step_shift = (h11 * slope_shift - h12 * slope_scale) / determinant
        length = np.ones_like(centre)
        moving = np.ones(centre.shape, bool)
        for _ in range(30):  # halve where the step leaves the domain or climbs nothing
            tried = scale + length * step_scale
            inside_domain = tried > 0.0
            value = likelihood(np.where(inside_domain, tried, scale), shift + length * step_shift)
            moving = ~(inside_domain & (value >= current - 1e-12 * np.abs(current)))
            if not moving.any():
                break
            length = np.where(moving, 0.5 * length, length)
        length = np.where(moving, 0.0, length)
        scale, shift = scale + length * step_scale, shift + length * step_shift
        current = likelihood(scale, shift)
        if np.max(np.abs(length * step_shift) + np.abs(length * step_scale)) < 1e-10:
            break
    return centre + spread * shift / scale


def _mills(x: Float64) -> Float64:
    """Normal density over distribution at x, without overflow in the far tail."""
    return np.exp(-0.5 * x**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(x))
