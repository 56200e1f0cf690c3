"""Flawed pixels on frames whose statistics are written down, and mending by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlight.bayer import PATTERNS, Pattern, colours
from starlight.capture.dead_pixels import Burst, DeadPixels, find_dead_pixels, mend
from starlight.capture.session import FrameFormat

FRAMES = 100
SHAPE = (48, 60)
FORMAT = FrameFormat(pattern="RGGB", black_level=100.0, white_level=4000.0)


def burst(seed: int, signal: np.ndarray, held: np.ndarray | None = None) -> Burst:
    """A burst of Poisson-Gaussian noise, a = 2, b = 9; held pixels have read noise alone."""
    rng = np.random.default_rng(seed)
    deviation = np.sqrt(9.0 + 2.0 * (signal if held is None else np.where(held, 0.0, signal)))
    frames = np.rint(100.0 + signal + deviation * rng.normal(size=(FRAMES, *signal.shape)))
    frames = np.clip(frames, 0.0, 4000.0)
    clipped = ((frames <= 0.0) | (frames >= 4000.0)).any(0)
    return Burst(FRAMES, frames.mean(0), frames.var(0, ddof=1), clipped)


def scene() -> np.ndarray:
    rows, columns = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    return 900.0 + 600.0 * np.sin(rows / 7.0) * np.cos(columns / 9.0)


def flawed_at(*places: tuple[int, int]) -> np.ndarray:
    found = np.zeros(SHAPE, bool)
    for place in places:
        found[place] = True
    return found


@pytest.mark.parametrize("mode", ["dark_outlier", "lit_outlier", "both"])
def test_sound_pixels_are_left_alone(mode: DeadPixels) -> None:
    found = find_dead_pixels(mode, burst(0, scene()), burst(1, np.zeros(SHAPE)), FORMAT)
    assert not found.any()


def test_each_flaw_is_found_where_it_shows() -> None:
    hot, stuck, dead = (10, 11), (20, 31), (33, 8)
    held = flawed_at(stuck, dead)
    lit_signal, dark_signal = scene(), np.zeros(SHAPE)
    lit_signal[hot] += 25.0  # ten deviations of the mean: in the dark alone can it be told
    dark_signal[hot] = 25.0
    lit_signal[stuck] = dark_signal[stuck] = 300.0
    lit_signal[dead] = 0.0
    lit, dark = burst(0, lit_signal, held), burst(1, dark_signal, held)
    wanted: dict[DeadPixels, np.ndarray] = {
        "none": flawed_at(),
        "dark_outlier": flawed_at(hot, stuck),
        "lit_outlier": flawed_at(stuck, dead),
        "both": flawed_at(hot, stuck, dead),
    }
    for mode, places in wanted.items():
        np.testing.assert_array_equal(find_dead_pixels(mode, lit, dark, FORMAT), places)
    without_dark = find_dead_pixels("lit_outlier", lit, None, FORMAT)
    np.testing.assert_array_equal(without_dark, wanted["lit_outlier"])


def test_light_on_one_pixel_is_no_flaw_where_those_beside_share_it() -> None:
    signal = np.full(SHAPE, 400.0)
    alone = signal.copy()
    signal[20, 20] += 1500.0
    alone[20, 20] += 1500.0
    for place in ((19, 20), (21, 20), (20, 19), (20, 21)):
        signal[place] += 350.0
    assert not find_dead_pixels("lit_outlier", burst(0, signal), None, FORMAT).any()
    found = find_dead_pixels("lit_outlier", burst(0, alone), None, FORMAT)
    np.testing.assert_array_equal(found, flawed_at((20, 20)))


def test_clipped_highlights_are_not_frozen_pixels() -> None:
    signal = scene()
    signal[10:20, 10:20] = 5000.0
    signal[15, 15] = 3700.0  # a sound pixel that clips less than those around it
    assert not find_dead_pixels("both", burst(0, signal), burst(1, 0.0 * signal), FORMAT).any()


def test_the_literal_rule_refuses_a_lit_scene_and_takes_a_dark_one() -> None:
    dark = burst(1, np.zeros(SHAPE))
    with pytest.raises(ValueError, match=r"literal must flag at most 5% of the pixels, got 100"):
        find_dead_pixels("literal", burst(0, scene()), dark, FORMAT)
    signal = np.zeros(SHAPE)
    signal[4, 5] = 50.0
    found = find_dead_pixels("literal", burst(0, signal), dark, FORMAT, threshold=8.0)
    np.testing.assert_array_equal(found, flawed_at((4, 5)))


@pytest.mark.parametrize("mode", ["dark_outlier", "both", "literal"])
def test_modes_that_need_dark_frames_say_so(mode: DeadPixels) -> None:
    with pytest.raises(ValueError, match=f"{mode} must have dark frames, got none"):
        find_dead_pixels(mode, burst(0, scene()), None, FORMAT)


@given(st.sampled_from(PATTERNS), st.integers(0, 10**6), st.floats(0.0, 0.4))
def test_mending_takes_sound_neighbours_of_the_same_colour(
    pattern: Pattern, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    seen = colours(pattern, 9, 11)
    image = seen * 1000.0 + rng.random((9, 11))  # thousands tell the colour
    flawed = rng.random((9, 11)) < share
    broken = np.where(flawed, -1e9, image)
    mended = mend(broken, flawed, pattern)
    np.testing.assert_array_equal(mended[~flawed], image[~flawed])
    whole = [(~flawed & (seen == colour)).any() for colour in range(3)]
    reached = flawed & (mended > -1e8)
    np.testing.assert_array_equal(np.floor(mended[reached] / 1000.0), seen[reached])
    if share < 0.2 and all(whole):
        assert (mended > -1e8).mean() > 0.95


def test_mending_averages_the_nearest_four() -> None:
    image = np.arange(49.0).reshape(7, 7) ** 2
    centre = np.zeros((7, 7), bool)
    centre[3, 3] = True
    straight = [image[1, 3], image[5, 3], image[3, 1], image[3, 5]]
    diagonal = [image[2, 2], image[2, 4], image[4, 2], image[4, 4]]
    beside = [image[2, 3], image[4, 3], image[3, 2], image[3, 4]]
    assert mend(image, centre, "BGGR")[3, 3] == np.mean(straight)  # row 3, column 3: red
    assert mend(image, centre, "GRBG")[3, 3] == np.mean(diagonal)  # green
    assert mend(image, centre, None)[3, 3] == np.mean(beside)
    stack = np.repeat(image[..., None], 3, axis=2)
    one_channel = np.repeat(centre[..., None], 3, axis=2)
    one_channel[..., 1:] = False
    np.testing.assert_array_equal(mend(stack, one_channel, None)[3, 3, 1:], image[3, 3])
    assert mend(stack, one_channel, None)[3, 3, 0] == np.mean(beside)


def test_nothing_sound_leaves_the_image() -> None:
    image = np.ones((4, 4))
    np.testing.assert_array_equal(mend(image, np.ones((4, 4), bool), None), image)
