"""The portable arithmetic against the C library's, and the distributions against scipy's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from starlight.noise import portable, sampling

EPSILON = 2.0**-52


def test_log_and_exp_are_within_two_units_in_the_last_place() -> None:
    rng = np.random.default_rng(0)
    near_one = 1.0 + np.concatenate([rng.uniform(-0.4, 0.4, 20000), 2.0 ** -rng.uniform(1, 52, 99)])
    x = np.concatenate([2.0 ** rng.uniform(-1000, 1000, 20000), near_one])
    wide = np.log(x.astype(np.longdouble))
    assert np.max(np.abs(portable.log(x) - wide) / np.abs(wide)) < 2 * EPSILON
    y = np.concatenate([rng.uniform(-700, 700, 20000), rng.uniform(-1, 1, 20000)])
    wide = np.exp(y.astype(np.longdouble))
    assert np.max(np.abs(portable.exp(y) - wide) / wide) < 2 * EPSILON


def test_log_and_exp_of_powers_of_two_and_zero_are_exact() -> None:
    assert portable.log(np.array([1.0]))[0] == 0.0
    assert portable.exp(np.array([0.0]))[0] == 1.0
    assert portable.power(np.array([0.0, 1.0]), 2.4).tolist() == [0.0, 1.0]


def test_uniform_is_a_function_of_seed_stream_and_index() -> None:
    long = sampling.uniform(5, 1, 0, 1000)
    np.testing.assert_array_equal(sampling.uniform(5, 1, 0, 10), long[:10])
    np.testing.assert_array_equal(sampling.uniform(5, 1, 512, 488), long[512:])
    assert not np.array_equal(sampling.uniform(5, 0, 0, 1000), long)
    assert not np.array_equal(sampling.uniform(6, 1, 0, 1000), long)
    assert long.min() > 0.0
    assert long.max() < 1.0


def test_uniform_golden_words() -> None:
    words = (sampling.uniform(0, 0, 0, 3) * 2.0**52).astype(np.int64)
    assert words.tolist() == [52001958301261, 1087840871631500, 501817441376514]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_uniform_refuses_a_seed_outside_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed must lie in 0\.\.2\^64-1"):
        sampling.uniform(seed, 0, 0, 1)


def test_normal_is_the_inverse_of_the_normal_distribution() -> None:
    u = np.concatenate([sampling.uniform(1, 0, 0, 200000), [2.0**-53, 1e-12, 0.075, 1 - 2.0**-53]])
    wanted = special.ndtri(u)
    assert np.max(np.abs(sampling.normal(u) - wanted) / np.abs(wanted)) < 12 * EPSILON
    assert sampling.normal(np.array([0.5]))[0] == 0.0


@given(st.floats(2.0**-53, 0.5))
def test_normal_is_odd(u: float) -> None:
    low, high = sampling.normal(np.array([u, 1.0 - u]))
    if 1.0 - (1.0 - u) == u:
        assert low == -high


@pytest.mark.parametrize("mean", [1, 2, 19, 400, 1097, 5000])
def test_whole_means_invert_the_poisson_distribution(mean: int) -> None:
    u = sampling.uniform(mean, 1, 0, 5000)
    counts = sampling.poisson(np.full(5000, float(mean)), u, np.full(5000, 0.5))
    np.testing.assert_array_equal(counts, stats.poisson.ppf(u, mean).astype(np.int64))


def test_a_fractional_mean_inverts_the_poisson_distribution() -> None:
    mean = np.linspace(0.0, 0.999, 5000)
    u = sampling.uniform(3, 2, 0, 5000)
    counts = sampling.poisson(mean, np.full(5000, 0.5), u)
    np.testing.assert_array_equal(counts, np.maximum(stats.poisson.ppf(u, mean), 0).astype(int))


@pytest.mark.parametrize("mean", [0.3, 3.7, 745.9])
def test_the_sum_of_both_parts_is_poisson(mean: float) -> None:
    n = 100000
    counts = sampling.poisson(
        np.full(n, mean), sampling.uniform(9, 1, 0, n), sampling.uniform(9, 2, 0, n)
    )
    wanted = stats.poisson.cdf(np.arange(counts.max() + 1), mean)
    got = np.cumsum(np.bincount(counts)) / n
    assert np.max(np.abs(got - wanted)) < 1.63 / math.sqrt(n)  # Kolmogorov's 1 % bound


def test_poisson_of_mixed_means_keeps_every_pixel_apart() -> None:
    mean = np.array([[0.0, 500.5], [3.0, 0.0]])
    whole, fraction = np.full((2, 2), 0.5), np.full((2, 2), 1e-9)
    np.testing.assert_array_equal(sampling.poisson(mean, whole, fraction), [[0, 500], [3, 0]])
