"""Bayer mosaics: which colour a pixel sees, and its nearest neighbours of the same colour."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

Pattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]
PATTERNS: tuple[str, ...] = get_args(Pattern)
Float64 = NDArray[np.float64]

# Weights of bilinear interpolation from a colour's own sites: green stands at every other pixel,
# red and blue at every fourth.
_GREEN = ((0.0, 0.25, 0.0), (0.25, 1.0, 0.25), (0.0, 0.25, 0.0))
_RED_BLUE = ((0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.25, 0.5, 0.25))
INTERPOLATION = np.array((_RED_BLUE, _GREEN, _RED_BLUE))  # [colour, row, column]


def check_pattern(pattern: str) -> None:
    """Raise ValueError unless the pattern is one of `PATTERNS`."""
    if pattern not in PATTERNS:
        raise ValueError(
            f"Bayer mosaic: pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}"
        )


def colours(pattern: Pattern, height: int, width: int) -> NDArray[np.uint8]:
    """Colour of every pixel of a mosaic, uint8 [H, W]: 0 red, 1 green, 2 blue."""
    check_pattern(pattern)
    cell = np.array(["RGB".index(letter) for letter in pattern], np.uint8).reshape(2, 2)
    return np.tile(cell, ((height + 1) // 2, (width + 1) // 2))[:height, :width]


def mosaic(image: NDArray[Any], pattern: Pattern) -> NDArray[Any]:
    """The samples that a sensor behind the colour filters sees: [H, W, 3] to [H, W]."""
    chosen = colours(pattern, *image.shape[:2])
    return np.take_along_axis(image, chosen[..., None].astype(np.intp), axis=2)[..., 0]


def demosaic(plane: NDArray[Any], pattern: Pattern) -> Float64:
    """Bilinear interpolation of the missing colours: [H, W] to float64 [H, W, 3].

    A sample of a pixel's own colour is kept; at the border the weights of the sites that exist
    are scaled to sum to one.
    """
    seen = colours(pattern, *plane.shape)
    result = np.empty((*plane.shape, 3))
    for colour in range(3):
        sites = (seen == colour).astype(np.float64)
        kernel = INTERPOLATION[colour]
        weight = convolve(sites, kernel, mode="constant")
        total = convolve(sites * plane, kernel, mode="constant")
        result[..., colour] = total / np.where(weight > 0.0, weight, 1.0)
    return result


def planes(image: NDArray[Any], pattern: Pattern | None) -> list[NDArray[Any]]:
    """Views of an image's planes, each a regular grid of one colour.

    A mosaic [H, W] has four: (even, even), (even, odd), (odd, even), (odd, odd) rows and columns;
    a colour image [H, W, 3] has its channels; one plane without a pattern is itself.
    """
    if pattern is not None:
        return [image[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    if image.ndim == 3:
        return [image[..., channel] for channel in range(image.shape[2])]
    return [image]
