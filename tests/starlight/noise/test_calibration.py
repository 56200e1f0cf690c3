"""Noise parameters recovered from points, flat pairs, and frames with flaws."""

import numpy as np
import pytest

from starlight.noise.calibration import NoisePoints, fit_noise, flat_pair_points
from starlight.noise.profiles import CameraProfile


def points(a: float, b: float, degrees: float, count: int = 20000, seed: int = 0) -> NoisePoints:
    rng = np.random.default_rng(seed)
    signal = rng.uniform(0.0, 3000.0, count)
    variance = (a * signal + b) * rng.chisquare(degrees, count) / degrees
    return NoisePoints(signal, variance, np.full(count, degrees))


@pytest.mark.parametrize("degrees", [3.0, 11.0, 199.0])
@pytest.mark.parametrize("gain", [1.0, 4.0, 16.0])
def test_a_and_b_are_recovered_within_their_errors(gain: float, degrees: float) -> None:
    a, b = CameraProfile.load("imx385").at_analog_gain(gain)
    found = fit_noise(points(a, b, degrees))
    assert abs(found.a - a) < 5.0 * found.a_error + 0.01 * a  # medians at 3 degrees are off by 1 %
    assert abs(found.b - b) < 5.0 * found.b_error + 0.02 * b
    assert found.a_error < 0.02 * a
    assert found.points == 20000
    assert found.electrons_per_dn == 1.0 / found.a
    assert found.read_noise_electrons == np.sqrt(found.b) / found.a


def test_flaws_do_not_carry_the_line_away() -> None:
    sound = points(3.5, 12.0, 199.0)
    wild = NoisePoints(sound.signal, sound.variance.copy(), sound.degrees)
    chosen = np.random.default_rng(1).random(wild.signal.size) < 0.01
    wild.variance[chosen] *= 1000.0
    assert abs(fit_noise(wild).a / fit_noise(sound).a - 1.0) < 0.01


@pytest.mark.parametrize("levels", [(200.0, 800.0, 2000.0, 3000.0)])
def test_flat_pairs_give_the_line_in_spite_of_fixed_pattern(levels: tuple[float, ...]) -> None:
    a, b, black = 3.5, 12.0, 240.0
    rng = np.random.default_rng(2)
    rows = np.linspace(0.8, 1.0, 192)[:, None]
    pattern = rows * (1.0 + 0.02 * rng.normal(size=(192, 256)))  # vignetting and fixed pattern
    pairs = []
    for level in levels:
        frames = []
        for light in (1.0, 1.01):  # the lamp drifts between the two
            mean = level * light * pattern
            noise = rng.poisson(mean / a) * a + rng.normal(0.0, np.sqrt(b - 1 / 12), mean.shape)
            frames.append(np.rint(black + noise).astype(np.uint16))
        pairs.append(flat_pair_points(frames[0], frames[1], black))
    found = fit_noise(NoisePoints.join(pairs))
    assert abs(found.a / a - 1.0) < 0.05
    assert abs(found.b - b) < 5.0 * found.b_error + 0.05 * a * min(levels)


def test_blocks_with_clipped_samples_are_left_out() -> None:
    frame = np.random.default_rng(3).integers(0, 100, (64, 64))
    frame[0, 0] = 4095
    assert flat_pair_points(frame, frame, 0.0, 4095.0).signal.size == 15
    assert flat_pair_points(frame, frame, 0.0).signal.size == 16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (NoisePoints(*np.ones((3, 31))), "points must be at least 32, got 31"),
        (NoisePoints(*np.ones((3, 500))), "signals must differ, got 1 alone"),
        (
            NoisePoints(np.arange(500.0), 1000.0 - np.arange(500.0), np.full(500, 99.0)),
            "variance must grow with the signal, got a slope of -",
        ),
    ],
)
def test_points_that_hold_no_line_are_refused(given: NoisePoints, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_noise(given)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.zeros((32, 33)), r"must be two planes of equal shape, got \[32, 32\] and \[32, 33\]"),
        (np.zeros((32, 32, 3)), "must be two planes of equal shape"),
    ],
)
def test_pairs_that_do_not_match_are_refused(second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flat_pair_points(np.zeros((32, 32)), second, 0.0)
    with pytest.raises(ValueError, match="flat frames must be at least 16 x 16, got"):
        flat_pair_points(np.zeros((32, 8)), np.zeros((32, 8)), 0.0)
