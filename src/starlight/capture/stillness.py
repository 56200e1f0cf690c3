"""A camera that moved: shifts between frames by phase correlation of block means.

Pairs of a burst must show the same light on the same pixel. Block means are nearly free of noise
and of flawed pixels, and small enough to keep one per frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

Shift = tuple[float, float]  # rows, columns, in pixels

_BLOCKS = 192  # along the shorter side, at most
_LEAST_LIKENESS = 0.5  # correlation below which noise hides the scene, and nothing is claimed


def block_size(shape: tuple[int, ...]) -> int:
    """Side of a block in pixels: even, so that a block holds whole Bayer cells."""
    return max(2, 2 * round(min(shape[:2]) / _BLOCKS / 2))


def block_means(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Means over blocks and colours: [H, W] or [H, W, 3] to float32 [H // size, W // size].

    A border narrower than a block is left out; an image smaller than a block is one block.
    """
    size = block_size(pixels.shape)
    height, width = (max(1, side // size) for side in pixels.shape[:2])
    rows, columns = (min(size, side) for side in pixels.shape[:2])
    trimmed = pixels[: height * rows, : width * columns]
    split = trimmed.reshape(height, rows, width, columns, *pixels.shape[2:])
    axes = (1, 3) if pixels.ndim == 2 else (1, 3, 4)
    return split.mean(axes, dtype=np.float32)


def shift_between(reference: NDArray[Any], moved: NDArray[Any], size: int) -> Shift | None:
    """(rows, columns) in pixels by which the second set of block means is moved.

    size: side of a block in pixels. None where it cannot be told: fewer than 8 blocks along a
    side, or likeness under the best shift below 0.5 (a flat scene, or noise above it).
    """
    if min(reference.shape) < 8:
        return None
    window = np.outer(*(np.hanning(side) for side in reference.shape))
    first, second = ((image - image.mean()) * window for image in (reference, moved))
    power = float((first**2).sum() * (second**2).sum())
    if power == 0.0:
        return None
    # Without whitening: at low light most frequencies hold noise alone.
    shift, _, _ = phase_cross_correlation(
        first, second, upsample_factor=20 * size, normalization=None
    )
    spectrum = np.fft.fft2(first) * np.fft.fft2(second).conj()
    rows, columns = (np.fft.fftfreq(side) for side in reference.shape)
    turn = np.exp(2j * np.pi * (rows[:, None] * shift[0] + columns[None] * shift[1]))
    if float((spectrum * turn).real.mean()) / np.sqrt(power) < _LEAST_LIKENESS:
        return None
    return float(-shift[0] * size), float(-shift[1] * size)


def check_still(
    names: Sequence[str], shifts: Sequence[Shift | None], limit: float
) -> tuple[float, int]:
    """Refuse frames of a camera that moved; return (largest shift in pixels, frames not told).

    names: of the frames; limit: largest shift allowed, in pixels. Raises ValueError that names
    frame and shift.
    """
    largest = 0.0
    for name, shift in zip(names, shifts, strict=True):
        if shift is None:
            continue
        if (length := math.hypot(*shift)) > limit:
            raise ValueError(
                f"capture: camera must stand still within {limit:g} pixels, got a shift of "
                f"{shift[0]:+.2f} rows and {shift[1]:+.2f} columns in {name}"
            )
        largest = max(largest, length)
    return largest, sum(shift is None for shift in shifts)
