"""Measures of generated noise against values known in closed form."""

import numpy as np
import pytest
from numpy.typing import NDArray

from starlight.evaluation.noise import (
    AKLD_WINDOW,
    HISTOGRAM_EDGES,
    INTENSITY_BINS,
    LAGS,
    akld,
    correlation,
    histogram,
    histogram_kl,
    local_divergences,
    local_variance,
    pgap,
    variance_by_intensity,
)

RNG = np.random.default_rng(0)
FLAT = np.full((64, 64, 3), 0.5)


def noise(sigma: float, seed: int = 0, size: int = 64) -> NDArray[np.float64]:
    return sigma * np.random.default_rng(seed).standard_normal((size, size, 3))


def test_window_is_a_normalised_even_gaussian() -> None:
    assert AKLD_WINDOW.sum() == 1.0
    np.testing.assert_array_equal(AKLD_WINDOW, AKLD_WINDOW[::-1])
    np.testing.assert_array_equal(AKLD_WINDOW[:4], [0.03125, 0.109375, 0.21875, 0.28125])


def test_local_variance_spreads_one_sample_by_the_window_and_mirrors_at_the_border() -> None:
    residual = np.zeros((20, 20, 1))
    residual[10, 10] = 2.0
    found = local_variance(residual)[..., 0]
    spread = 4.0 * np.outer(AKLD_WINDOW, AKLD_WINDOW)
    np.testing.assert_allclose(found[7:14, 7:14], spread, rtol=1e-12)
    assert found[0, 0] == 1e-10
    residual = np.zeros((20, 20, 1))
    residual[1, 10] = 1.0  # seen twice from row 0: as itself and in the mirror, one row beyond
    found = local_variance(residual)[..., 0]
    assert found[0, 10] == pytest.approx(2 * AKLD_WINDOW[2] * AKLD_WINDOW[3])


def test_akld_of_equal_and_of_scaled_noise_is_known() -> None:
    real = FLAT + noise(0.1)
    assert akld(FLAT, real, [real, real]) == 0.0
    twice = FLAT + 2.0 * (real - FLAT)  # r = 4 everywhere
    assert akld(FLAT, real, [twice]) == pytest.approx(0.5 * (4.0 - np.log(4.0) - 1.0))
    # The ratio is limited to 10.
    huge = FLAT + 100.0 * (real - FLAT)
    assert akld(FLAT, real, [huge]) == pytest.approx(0.5 * (10.0 - np.log(10.0) - 1.0))
    # It is the mean over samples, and not symmetric.
    assert akld(FLAT, real, [real, twice]) == pytest.approx(0.5 * akld(FLAT, real, [twice]))
    assert akld(FLAT, twice, [real]) == pytest.approx(0.5 * (0.25 - np.log(0.25) - 1.0))


def test_akld_charges_scatter_and_the_mean_variance_does_not() -> None:
    """Independent samples of one model are not at 0: local variances are estimates."""
    real = FLAT + noise(0.1, seed=1)
    samples = [FLAT + noise(0.1, seed=seed) for seed in range(2, 42)]
    each, pooled = local_divergences(FLAT, real, samples)
    assert 0.015 < pooled < 0.7 * each
    assert each < 0.08


def test_histogram_counts_eight_bit_differences() -> None:
    assert len(HISTOGRAM_EDGES) == 256
    levels = np.array([[-255, -127, -126, 0, 1, 126, 127, 255]]) / 255.0
    counts = histogram([levels[..., None]])
    assert counts.sum() == 8
    assert counts[[0, 1, 127, 128, 253, 254]].tolist() == [2, 1, 1, 1, 1, 2]


def test_histogram_kl_of_known_distributions() -> None:
    p, q = np.zeros((2, 255), np.int64)
    p[10], p[11] = 50, 50
    q[10], q[11] = 25, 75
    assert histogram_kl(p, p) == 0.0
    assert histogram_kl(p, q) == pytest.approx(0.5 * np.log(2.0) + 0.5 * np.log(2.0 / 3.0))
    q[11], q[12] = 0, 75  # a value that the model never makes costs log(p / epsilon)
    assert histogram_kl(p, q) == pytest.approx(
        0.5 * np.log(2.0) + 0.5 * np.log(0.5 / 1e-8), rel=1e-5
    )
    with pytest.raises(ValueError, match="histograms must hold samples"):
        histogram_kl(p, np.zeros_like(q))


def test_variance_follows_intensity_per_channel() -> None:
    truth = np.broadcast_to(np.linspace(0.0, 0.999, 256)[:, None, None], (256, 256, 3))
    slope = np.array([0.01, 0.02, 0.04])
    residual = np.sqrt(slope * truth) * noise(1.0, size=256)
    found = variance_by_intensity([(truth, residual)])
    centres = (np.arange(INTENSITY_BINS) + 0.5) / INTENSITY_BINS
    np.testing.assert_allclose(found, slope[:, None] * centres, rtol=0.1)
    with pytest.raises(ValueError, match="pairs must be at least one"):
        variance_by_intensity([])


def test_an_empty_bin_of_intensity_is_nan() -> None:
    found = variance_by_intensity([(FLAT, noise(0.1))])
    assert np.isnan(found[:, :8]).all()
    assert np.isfinite(found[:, 8]).all()


def test_correlation_finds_rows_neighbours_and_channels() -> None:
    white = noise(1.0, size=256)
    row = np.random.default_rng(9).standard_normal((256, 1, 1))
    rows = correlation([white + row])
    spatial = dict(zip(LAGS, rows.spatial, strict=True))
    assert spatial[0, 16] == pytest.approx(0.5, abs=0.05)
    assert spatial[1, 0] == pytest.approx(0.0, abs=0.05)
    assert rows.channels[0, 1] == pytest.approx(0.5, abs=0.05)
    smooth = correlation([white[:, 1:] + white[:, :-1]])
    spatial = dict(zip(LAGS, smooth.spatial, strict=True))
    assert spatial[0, 1] == pytest.approx(0.5, abs=0.02)
    assert spatial[0, 2] == pytest.approx(0.0, abs=0.02)
    np.testing.assert_allclose(np.diag(smooth.channels), 1.0)
    with pytest.raises(ValueError, match="larger than 16 x 16"):
        correlation([white[:16]])
    with pytest.raises(ValueError, match="at least one"):
        correlation([])


def test_pgap_is_the_difference_of_two_psnrs() -> None:
    truth, noisy = FLAT, FLAT + noise(0.1)
    gap = pgap(lambda x: truth + 0.01, lambda x: truth + 0.1, [(truth, noisy)])
    assert gap == pytest.approx(20.0)
    assert pgap(lambda x: x, lambda x: x, [(truth, noisy)]) == 0.0
    with pytest.raises(ValueError, match="at least one"):
        pgap(lambda x: x, lambda x: x, [])


def test_shapes_and_emptiness_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth must have shape \[H, W, C\]"):
        akld(FLAT[..., 0], FLAT[..., 0], [])
    with pytest.raises(ValueError, match="must have truth's shape"):
        akld(FLAT, FLAT[:8], [FLAT])
    with pytest.raises(ValueError, match="generated must hold at least one image"):
        akld(FLAT, FLAT, [])
