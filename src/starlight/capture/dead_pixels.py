"""Flawed pixels: found in the dark, in the light, or in both; mended from their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, median_filter, minimum_filter
from scipy.special import chdtri

from starlight.bayer import Float64, Pattern, colours, planes
from starlight.capture.burst import BurstStatistics
from starlight.capture.session import FrameFormat

DeadPixels = Literal["none", "dark_outlier", "lit_outlier", "both", "literal"]
DEAD_PIXELS: tuple[str, ...] = get_args(DeadPixels)

_RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
_LITERAL_LIMIT = 0.05
# One sound pixel in ten million varies so little over a burst by chance.
_FROZEN_PROBABILITY = 1e-7
_ROUNDING_VARIANCE = 1.0 / 12.0
# An isolated pixel stands off by so many times the contrast of its neighbours, and those beside it
# share less than so much of its excess.
_ISOLATED_CONTRAST = 2.0
_SHARED_EXCESS = 1.0 / 16.0


@dataclass(frozen=True)
class Burst:
    """What the search needs of one burst: per-pixel mean, variance over frames, clipped share."""

    frames: int
    mean: Float64
    variance: Float64
    clipped: NDArray[np.bool_]

    @classmethod
    def of(cls, statistics: BurstStatistics) -> Burst:
        """From the statistics of a burst; any clipped sample makes a pixel `clipped`."""
        return cls(
            statistics.frames,
            statistics.mean,
            statistics.variance,
            (statistics.below + statistics.above) > 0,
        )


def find_dead_pixels(
    mode: DeadPixels, lit: Burst, dark: Burst | None, format: FrameFormat, threshold: float = 5.0
) -> NDArray[np.bool_]:
    """Map of flawed pixels, of a frame's shape.

    threshold: multiple of the averaged frames' standard deviation (threshold 1 of the source).
    Modes: `dark_outlier` |dark mean - median of its colour plane| > threshold; `lit_outlier`: dead
    (no light where all neighbours have some), frozen (does not vary as its light demands) or
    isolated (stands out from all eight neighbours of its colour), see docs/CAPTURE.md; `both`;
    `literal` |mean - dark mean| > threshold, which flags what is lit; `none`.
    Raises ValueError when the mode needs dark frames and there are none, or when `literal` flags
    more than 5 % of the pixels.
    """
    if mode == "none":
        return np.zeros(lit.mean.shape, bool)
    if dark is None and mode != "lit_outlier":
        raise ValueError(
            f"dead pixels: {mode} must have dark frames, got none; "
            "capture some with the lens closed, or choose lit_outlier"
        )
    if mode == "literal":
        assert dark is not None
        flagged = np.abs(lit.mean - dark.mean) > threshold * _deviation_of_mean(dark)
        if (share := float(flagged.mean())) > _LITERAL_LIMIT:
            raise ValueError(
                f"dead pixels: literal must flag at most {_LITERAL_LIMIT:.0%} of the pixels, got "
                f"{share:.1%}: read literally the rule flags every lit pixel; choose both"
            )
        return flagged
    flagged = np.zeros(lit.mean.shape, bool)
    if mode in ("dark_outlier", "both"):
        assert dark is not None
        flagged |= _dark_outliers(dark, format.pattern, threshold)
    if mode in ("lit_outlier", "both"):
        flagged |= _lit_outliers(lit, dark, format, threshold)
    return flagged


def _deviation_of_mean(burst: Burst) -> float:
    """Standard deviation of a burst's mean, that of its median pixel, rounding included."""
    variance = max(float(np.median(burst.variance)), _ROUNDING_VARIANCE)
    return float(np.sqrt(variance / burst.frames))


def _dark_outliers(dark: Burst, pattern: Pattern | None, threshold: float) -> NDArray[np.bool_]:
    flagged = np.zeros(dark.mean.shape, bool)
    least = _deviation_of_mean(dark)
    for mean, found in zip(planes(dark.mean, pattern), planes(flagged, pattern), strict=True):
        away = np.abs(mean - np.median(mean))
        # Fixed pattern noise of sound pixels widens the spread beyond the noise of the mean.
        spread = max(1.4826 * float(np.median(away)), least)
        found |= away > threshold * spread
    return flagged


def _lit_outliers(
    lit: Burst, dark: Burst | None, format: FrameFormat, threshold: float
) -> NDArray[np.bool_]:
    flagged = np.zeros(lit.mean.shape, bool)
    least = 0.0
    if lit.frames > 2:
        least = float(chdtri(lit.frames - 1, 1.0 - _FROZEN_PROBABILITY)) / (lit.frames - 1)
    beside = _excess_beside(lit.mean, format)
    darkness = lit.mean if dark is None else dark.mean
    arrays = (lit.mean, lit.variance, lit.clipped, flagged, darkness, *beside)
    for mean, variance, clipped, found, dark_mean, own, others in zip(
        *(planes(array, format.pattern) for array in arrays), strict=True
    ):
        black = format.black_level if dark is None else float(np.median(dark_mean))
        usual_variance = _noise_curve(mean, variance, clipped, black)
        expected = usual_variance(mean)
        if format.pattern is None:
            # Demosaicing leaves some sites with less noise than others of equal brightness.
            expected = np.minimum(expected, _ring(minimum_filter, variance))
        deviation = np.sqrt(expected / lit.frames)
        margin = threshold * np.maximum(deviation, _ring(maximum_filter, deviation))
        lowest, highest = _ring(minimum_filter, mean), _ring(maximum_filter, mean)
        reach = _ISOLATED_CONTRAST * (highest - lowest) + margin
        alone = np.sign(own) * others < _SHARED_EXCESS * np.abs(own)
        alone &= ~_ring(maximum_filter, clipped)  # clipped neighbours hide their contrast
        found |= alone & ((mean < lowest - reach) | (mean > highest + reach))
        # The lens spreads light: no sound pixel is without any where all around it have some.
        own_deviation = np.sqrt(np.maximum(variance, expected) / lit.frames)
        dimmest = np.maximum(own_deviation, np.sqrt(usual_variance(lowest) / lit.frames))
        unlit = mean - black < threshold * own_deviation
        found |= unlit & (lowest - black > 2.0 * threshold * dimmest)
        found |= ~clipped & (variance < least * expected) & (expected > 2.0 * _ROUNDING_VARIANCE)
    return flagged


def _excess_beside(mean: Float64, format: FrameFormat) -> tuple[Float64, Float64]:
    """(relative excess of a pixel over its neighbours of the same colour, of the pixels beside it).

    Light that falls on one pixel falls on those beside it too, whatever their colour.
    """
    usual = np.empty_like(mean)
    for values, found in zip(
        planes(mean, format.pattern), planes(usual, format.pattern), strict=True
    ):
        found[...] = median_filter(values, footprint=_RING, mode="mirror")
    floor = 0.005 * format.range  # where it is dark, a ratio would be noise
    own = (mean - usual) / (np.maximum(usual - format.black_level, 0.0) + floor)
    if format.pattern is None:
        return own, np.zeros_like(own)
    return own, np.mean([_shifted(own, *offset) for offset in _STRAIGHT], axis=0)


def _ring(function: Callable[..., NDArray[Any]], values: NDArray[Any]) -> NDArray[Any]:
    """Minimum or maximum over the eight neighbours, mirrored at the border; of values' dtype."""
    return function(values, footprint=_RING, mode="mirror")


def _noise_curve(
    mean: Float64, variance: Float64, clipped: NDArray[np.bool_], black: float
) -> Callable[[Float64], Float64]:
    """Mean to the variance that pixels of such a mean have as a rule, that of rounding at least.

    Medians over bins, interpolated. Darker than the darkest bin: on the line towards none at black;
    brighter than the brightest: as there.
    """
    level, spread = mean[~clipped], variance[~clipped]
    if level.size == 0:
        return lambda means: np.full_like(means, _ROUNDING_VARIANCE)
    bins = int(np.clip(level.size // 64, 1, 64))
    order = np.array_split(np.argsort(level, kind="stable"), bins)
    centres = np.array([np.median(level[members]) for members in order])
    medians = np.array([np.median(spread[members]) for members in order])
    if black < centres[0]:
        centres, medians = np.append(black, centres), np.append(0.0, medians)
    return lambda means: np.maximum(np.interp(means, centres, medians), _ROUNDING_VARIANCE)


def mend(image: Float64, flawed: NDArray[np.bool_], pattern: Pattern | None) -> Float64:
    """Flawed pixels replaced by bilinear interpolation; a new array of image's shape.

    A pixel becomes the mean of its four nearest neighbours of the same colour (green in a mosaic:
    the diagonal ones, red and blue: two pixels away) that are sound or already mended; a cluster
    is mended from its border inwards. An image without any sound pixel stays as it is.
    """
    mended = image.copy()
    for places, offsets in _neighbourhoods(image.shape, pattern):
        left = flawed & places
        known = places & ~flawed
        while left.any() and known.any():
            total, count = np.zeros(image.shape), np.zeros(image.shape)
            for rows, columns in offsets:
                total += _shifted(np.where(known, mended, 0.0), rows, columns)
                count += _shifted(known.astype(np.float64), rows, columns)
            reached = left & (count > 0)
            if not reached.any():
                break
            mended[reached] = total[reached] / count[reached]
            known |= reached
            left &= ~reached
    return mended


_STRAIGHT = ((-1, 0), (1, 0), (0, -1), (0, 1))
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_STRAIGHT_OF_MOSAIC = tuple((2 * rows, 2 * columns) for rows, columns in _STRAIGHT)


def _neighbourhoods(
    shape: tuple[int, ...], pattern: Pattern | None
) -> Iterator[tuple[NDArray[np.bool_], tuple[tuple[int, int], ...]]]:
    """(pixels, offsets of their neighbours) for each set of pixels that interpolates alike."""
    if pattern is None:
        yield np.ones(shape, bool), _STRAIGHT
        return
    seen = colours(pattern, *shape)
    for colour, offsets in ((0, _STRAIGHT_OF_MOSAIC), (1, _DIAGONAL), (2, _STRAIGHT_OF_MOSAIC)):
        yield seen == colour, offsets


def _shifted(image: Float64, rows: int, columns: int) -> Float64:
    """result[y, x] = image[y + rows, x + columns], 0 outside."""
    result = np.zeros_like(image)
    height, width = image.shape[:2]
    into = (
        slice(max(0, -rows), min(height, height - rows)),
        slice(max(0, -columns), min(width, width - columns)),
    )
    source = (
        slice(max(0, rows), min(height, height + rows)),
        slice(max(0, columns), min(width, width + columns)),
    )
    result[into] = image[source]
    return result
