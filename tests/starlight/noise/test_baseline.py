"""The calibrated variance model recovers what made the noise, also between calibrated gains."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from starlight.noise.baseline import VarianceModel

RNG = np.random.default_rng(5)
TRUTH = np.broadcast_to(np.linspace(0.0, 1.0, 200)[:, None, None], (200, 200, 3))


def variance(truth: NDArray[np.float64], analog: float, digital: float) -> NDArray[np.float64]:
    return analog * digital**2 * (1e-4 * truth * np.array([1.0, 2.0, 3.0]) + 2e-5)


def pairs(gains: list[tuple[float, float]]):  # type: ignore[no-untyped-def]
    for gain in gains:
        deviation = np.sqrt(variance(TRUTH, *gain))
        yield gain, TRUTH, TRUTH + deviation * RNG.standard_normal(TRUTH.shape)


@pytest.mark.parametrize("knots", [2, 9])
def test_fit_recovers_the_variance_at_and_between_gains(knots: int) -> None:
    model = VarianceModel.fit(pairs([(1, 1), (4, 1), (16, 1), (4, 2), (16, 2), (1, 2)]), knots)
    assert model.variances.shape == (6, 3, knots)
    tolerance = 0.1 if knots == 2 else 0.2
    for gain in ((4, 1), (16, 2), (8, 1), (2, 1.5), (32, 4)):
        np.testing.assert_allclose(
            model.variance(TRUTH, *gain), variance(TRUTH, *gain), rtol=tolerance
        )


@pytest.mark.parametrize("gains", [[(1, 1), (4, 1), (16, 1)], [(1, 1), (2, 2), (4, 4)]])
def test_gains_on_a_line_follow_it(gains: list[tuple[float, float]]) -> None:
    model = VarianceModel.fit(pairs(gains))
    between = tuple(np.sqrt(np.multiply(*gains[:2])))
    np.testing.assert_allclose(model.variance(TRUTH, *between), variance(TRUTH, *between), rtol=0.1)


def test_a_variance_that_falls_with_intensity_is_a_model_too() -> None:
    deviation = np.sqrt(4e-4 - 3e-4 * TRUTH)
    noisy = TRUTH + deviation * RNG.standard_normal(TRUTH.shape)
    found = VarianceModel.fit([((1, 1), TRUTH, noisy)]).at(1, 1)
    np.testing.assert_allclose(found, np.broadcast_to([4e-4, 1e-4], (3, 2)), rtol=0.06)


def test_many_knots_follow_a_bend_that_two_cannot() -> None:
    bent = np.where(TRUTH < 0.5, 1e-3 * TRUTH, 1e-3 * (1.0 - TRUTH)) + 1e-5
    noisy = TRUTH + np.sqrt(bent) * RNG.standard_normal(TRUTH.shape)
    errors = [
        np.abs(VarianceModel.fit([((2, 1), TRUTH, noisy)], knots).variance(TRUTH, 2, 1) - bent)
        for knots in (2, 17)
    ]
    assert errors[1].mean() < 0.2 * errors[0].mean()


def test_one_gain_and_dark_scenes_alone_suffice() -> None:
    dark = 0.3 * TRUTH
    noisy = dark + 0.01 * RNG.standard_normal(dark.shape)
    model = VarianceModel.fit([((2, 1), dark, noisy)], 17)
    assert np.isfinite(model.at(7, 3)).all()
    assert (model.at(7, 3) > 0).all()
    np.testing.assert_allclose(model.variance(dark, 2, 1), 1e-4, rtol=0.25)


def test_samples_have_the_variance_and_follow_the_seed() -> None:
    model = VarianceModel.fit(pairs([(4, 1)]))
    flat = np.full((256, 256, 3), 0.5)
    sample = model.sample(flat, 4, 1, np.random.default_rng(1))
    np.testing.assert_array_equal(sample, model.sample(flat, 4, 1, np.random.default_rng(1)))
    wanted = model.variance(flat, 4, 1)[0, 0]
    np.testing.assert_allclose((sample - flat).var((0, 1)), wanted, rtol=0.03)


def test_json_round_trip_and_refusals() -> None:
    model = VarianceModel.fit(pairs([(1, 1), (4, 1)]), 3)
    back = VarianceModel.from_json(json.loads(json.dumps(model.to_json())))
    np.testing.assert_array_equal(back.gains, model.gains)
    np.testing.assert_array_equal(back.variances, model.variances)
    with pytest.raises(ValueError, match="pairs must be at least one"):
        VarianceModel.fit([])
    with pytest.raises(ValueError, match="knots must be at least 2, got 1"):
        VarianceModel.fit(pairs([(1, 1)]), 1)
    for wrong in ({}, {"gains": [[1, 1]], "variances": [[[0.0, 1.0]]]}, {"gains": 1}):
        with pytest.raises(ValueError, match="variance model"):
            VarianceModel.from_json(wrong)
