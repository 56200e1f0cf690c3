"""Mosaics: every pattern's geometry, and what interpolation must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlight.bayer import PATTERNS, Pattern, colours, demosaic, mosaic, planes

patterns = st.sampled_from(PATTERNS)
sides = st.integers(1, 9)


@given(patterns, sides, sides)
def test_colours_repeat_the_pattern(pattern: Pattern, height: int, width: int) -> None:
    found = colours(pattern, height, width)
    assert found.shape == (height, width)
    for row in range(height):
        for column in range(width):
            letter = pattern[2 * (row % 2) + column % 2]
            assert "RGB"[found[row, column]] == letter


@given(patterns, st.integers(2, 12), st.integers(2, 12), st.integers(0, 99))
def test_demosaicing_keeps_what_was_seen(
    pattern: Pattern, height: int, width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).random((height, width, 3))
    seen = mosaic(image, pattern)
    filled = demosaic(seen, pattern)
    np.testing.assert_allclose(mosaic(filled, pattern), seen, rtol=1e-12)
    assert filled.min() >= seen.min() - 1e-12
    assert filled.max() <= seen.max() + 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_ramp_is_interpolated_exactly_inside(pattern: Pattern) -> None:
    rows, columns = np.mgrid[0:10, 0:12].astype(float)
    ramp = np.stack([rows + 2 * columns, 3 * rows - columns + 50, 7 - 0.5 * rows], axis=-1)
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(demosaic(mosaic(ramp, pattern), pattern)[inside], ramp[inside])


@given(patterns, st.integers(2, 9), st.integers(2, 9))
def test_planes_partition_a_mosaic_by_colour(pattern: Pattern, height: int, width: int) -> None:
    image = np.zeros((height, width), int)
    seen = colours(pattern, height, width)
    for plane, kind in zip(planes(image, pattern), planes(seen, pattern), strict=True):
        plane += 1  # a view: the image itself counts
        assert len(np.unique(kind)) == 1
    np.testing.assert_array_equal(image, 1)


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern must be one of RGGB, BGGR, GRBG, GBRG, got 'XX'"):
        colours("XX", 2, 2)  # type: ignore[arg-type]
