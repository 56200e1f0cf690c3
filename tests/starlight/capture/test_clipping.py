"""Modes by counting, censored fits by what is known of the samples."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlight.capture.clipping import censored_means, modes


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_modes_are_those_of_counting(frames: int, width: int, values: int, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(0, values, (frames, width))
    wanted = []
    for column in samples.T.tolist():
        counts = Counter(column)
        most = max(counts.values())
        tied = [value for value, count in counts.items() if count == most]
        wanted.append(sum(tied) / len(tied))
    np.testing.assert_allclose(modes(samples), wanted, rtol=1e-15)


def sufficient(samples: np.ndarray, low: float, high: float) -> tuple[np.ndarray, ...]:
    inside = (samples > low) & (samples < high)
    kept = samples * inside
    counts = (inside.sum(0), kept.sum(0), (kept**2).sum(0))
    ends = ((samples <= low).sum(0), (samples >= high).sum(0))
    return tuple(np.asarray(array, float) for array in (*counts, *ends))


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(("low", "high"), [(-9.0, 1.0), (-9.0, 0.0), (-1.0, 1.0), (0.5, 9.0)])
def test_a_censored_fit_is_unbiased_where_a_mean_is_not(
    low: float, high: float, scale: float
) -> None:
    samples = np.random.default_rng(0).normal(0.0, 1.0, (200, 4000)) * scale + 1000.0
    low, high = low * scale + 1000.0, high * scale + 1000.0
    fitted = censored_means(*sufficient(samples, low, high), low, high) - 1000.0
    spread = fitted.std() / np.sqrt(fitted.size)
    assert abs(fitted.mean()) < 5.0 * spread + 0.006 * scale  # the estimator's own 1 / n bias
    if (low, high) != (1000.0 - scale, 1000.0 + scale):  # there clipping is symmetric
        assert abs(np.clip(samples, low, high).mean() - 1000.0) > 0.05 * scale


def test_without_censored_samples_the_fit_is_the_mean() -> None:
    samples = np.random.default_rng(1).normal(50.0, 7.0, (30, 100))
    fitted = censored_means(*sufficient(samples, -1e6, 1e6), -1e6, 1e6)
    np.testing.assert_allclose(fitted, samples.mean(0), rtol=1e-12)


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    from scipy.optimize import minimize
    from scipy.stats import norm

    samples = np.random.default_rng(2).normal(0.3, 1.0, (40, 3))
    fitted = censored_means(*sufficient(samples, -0.5, 1.0), -0.5, 1.0)
    for column, value in zip(samples.T, fitted, strict=True):
        inside = column[(column > -0.5) & (column < 1.0)]
        below, above = (column <= -0.5).sum(), (column >= 1.0).sum()

        def loss(x: np.ndarray, inside: np.ndarray, below: int, above: int) -> float:
            normal = norm(x[0], np.exp(x[1]))
            ends = below * normal.logcdf(-0.5) + above * normal.logsf(1.0)
            return float(-normal.logpdf(inside).sum() - ends)

        found = minimize(loss, np.zeros(2), (inside, below, above), method="Nelder-Mead",
                         options={"xatol": 1e-9, "fatol": 1e-12})  # fmt: skip
        assert abs(found.x[0] - value) < 1e-6
