"""The training sampler: the same physics as the named conditions, drawn per patch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from starlight.bayer import demosaic
from starlight.noise import TONE_CURVES, CameraNoise, sampling
from starlight.noise.colour import COLOUR_MATRIX, WHITE_BALANCE
from starlight.noise.training import TrainingNoise, smoothed, through_jpeg


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches(count: int = 64, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(99)) * 255.0


@pytest.mark.parametrize("curve", sorted(TONE_CURVES))
def test_camera_noise_equals_the_named_condition_on_the_same_normals(curve: str) -> None:
    clean = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    wanted = CameraNoise(4.0, 2.0, shot="gaussian", curve=curve).apply(clean, 5, "float_unclipped")
    z = sampling.normal(sampling.uniform(5, 0, 0, clean.size)).reshape(clean.shape)
    # Half of the log range 1..16 is gain 4; the whole of 1..2 is digital gain 2.
    got = TrainingNoise(curve=curve)._camera(
        torch.tensor(clean).permute(2, 0, 1)[None].float(),
        torch.tensor(z).permute(2, 0, 1)[None].float(),
        torch.tensor([0.5]),
        torch.tensor([1.0]),
        torch.tensor([False]),
    )
    # 255 x a few float32 roundings of values near one.
    np.testing.assert_allclose(got[0].permute(1, 2, 0).numpy(), wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.25, 0.6, 0.99, 1.0])
def test_gains_interpolate_as_the_profile_does(strength: float) -> None:
    noise = TrainingNoise()
    a, b = noise._interpolate(torch.tensor([strength]))
    wanted = noise.profile.at_analog_gain(min(16.0**strength, 16.0))
    np.testing.assert_allclose([a.item(), b.item()], wanted, rtol=2e-6)


def test_a_seed_gives_the_same_batch_and_leaves_the_clean_one_alone() -> None:
    clean = patches()
    before = clean.clone()
    first = TrainingNoise().sample(clean, generator(1))
    assert torch.equal(first, TrainingNoise().sample(clean, generator(1)))
    assert not torch.equal(first, TrainingNoise().sample(clean, generator(2)))
    assert torch.equal(clean, before)
    assert first.shape == clean.shape
    assert first.dtype == torch.float32


def test_gaussian_patches_have_sigmas_uniform_up_to_the_maximum() -> None:
    clean = torch.full((400, 3, 32, 32), 128.0)
    noise = TrainingNoise(gaussian_fraction=1.0, u8_fraction=0.0)
    sigmas = (noise.sample(clean, generator()) - clean).flatten(1).std(1)
    assert sigmas.max() < 55.0 * 1.06
    quartiles = torch.quantile(sigmas, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([13.75, 27.5, 41.25]), rtol=0, atol=5.0)


def test_the_two_kinds_and_the_two_ranges_come_in_their_fractions() -> None:
    clean = patches(400, 8)
    whole = (TrainingNoise().sample(clean, generator(3)) % 1.0 == 0.0).flatten(1).all(1)
    assert 150 < whole.sum() < 250
    # With sigma_max = 0 the Gaussian patches are the untouched ones.
    quiet = TrainingNoise(sigma_max=0.0, u8_fraction=0.0).sample(clean, generator(3))
    assert 150 < (quiet == clean).flatten(1).all(1).sum() < 250


def test_rounded_patches_are_whole_numbers_of_a_byte() -> None:
    noisy = TrainingNoise(u8_fraction=1.0).sample(patches(), generator())
    assert torch.equal(noisy, noisy.byte().float())


def test_an_empty_batch_stays_empty() -> None:
    assert TrainingNoise().sample(torch.empty(0, 3, 8, 8), generator()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gaussian_fraction", 1.5),
        ("u8_fraction", -0.1),
        ("sigma_max", float("inf")),
        ("digital_gain_max", 0.5),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"training noise: {name} must"):
        TrainingNoise(**{name: value})  # type: ignore[arg-type]


def test_noise_on_a_mosaic_is_what_a_camera_makes_of_it() -> None:
    noise = TrainingNoise()
    clean = patches(1, 24) * 0.5 + 64.0
    z = torch.randn(clean.shape, generator=generator(1))
    strength, digital = torch.tensor([0.5]), torch.tensor([1.0])  # gains 4 and 2
    got = noise._camera(clean, z, strength, digital, torch.tensor([True]))

    a, b = noise.profile.at_analog_gain(4.0)
    tone, matrix = TONE_CURVES["srgb"], np.array(COLOUR_MATRIX)
    linear = tone.to_linear(clean[0].permute(1, 2, 0).double().numpy() / 255.0)
    light = np.maximum(linear @ np.linalg.inv(matrix).T, 0.0) / WHITE_BALANCE
    range_dn = noise.profile.range_dn
    deviation = np.sqrt(2.0 * a * light / range_dn + 4.0 * b / range_dn**2)
    samples = deviation * z[0].permute(1, 2, 0).double().numpy()
    plane = np.empty((24, 24))
    for row, column, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        plane[row::2, column::2] = samples[row::2, column::2, colour]
    added = demosaic(plane, "RGGB") * WHITE_BALANCE @ matrix.T
    wanted = tone.to_encoded(linear + added) * 255.0
    np.testing.assert_allclose(got[0].permute(1, 2, 0).numpy(), wanted, rtol=0, atol=2e-3)


def test_fractions_of_mosaic_and_jpeg() -> None:
    clean = torch.full((300, 3, 16, 16), 128.0)

    def neighbours(noise: TrainingNoise) -> torch.Tensor:
        added = noise.sample(clean, generator(4)) - 128.0
        product = (added[..., 1:] * added[..., :-1]).mean((1, 2, 3))
        return product / added.square().mean((1, 2, 3))

    camera: dict[str, Any] = {"gaussian_fraction": 0.0, "u8_fraction": 0.0}
    assert (neighbours(TrainingNoise(**camera)) > 0.3).sum() == 0
    shared = (neighbours(TrainingNoise(**camera, demosaic_fraction=0.5)) > 0.3).sum()
    assert 120 < shared < 180
    plain = TrainingNoise(u8_fraction=0.5).sample(patches(300, 16), generator(5))
    pressed = TrainingNoise(u8_fraction=0.5, jpeg_fraction=1.0).sample(
        patches(300, 16), generator(5)
    )
    whole = (plain % 1.0 == 0.0).flatten(1).all(1)
    assert torch.equal((pressed != plain).flatten(1).any(1), whole)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_smoothing_is_scipys(sigma: float) -> None:
    noise = torch.randn(3, 40, 32, generator=generator(6))
    luma = torch.einsum("c,chw->hw", torch.tensor([0.299, 0.587, 0.114]), noise)
    got = smoothed(noise, sigma, 2.0 * sigma)

    def reference(planes: torch.Tensor, sigma: float) -> NDArray[np.float64]:
        sigmas, radius = (0, sigma, sigma), (0, *[math.ceil(3 * sigma)] * 2)
        return gaussian_filter(planes.double().numpy(), sigmas, radius=radius, mode="mirror")

    wanted = reference(luma[None], sigma) + reference(noise - luma, 2.0 * sigma)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-5)


def test_no_smoothing_changes_nothing() -> None:
    noise = torch.randn(3, 8, 8, generator=generator(6))
    assert torch.allclose(smoothed(noise, 0.0, 0.0), noise, rtol=0, atol=1e-6)


def test_the_fraction_smoothed_is_camera_noise_alone() -> None:
    clean = torch.full((300, 3, 16, 16), 128.0)

    def changed(**fields: Any) -> int:
        draw = TrainingNoise(u8_fraction=0.0, **fields)
        plain = TrainingNoise(u8_fraction=0.0, gaussian_fraction=draw.gaussian_fraction)
        noisy, same = (noise.sample(clean, generator(7)) for noise in (draw, plain))
        return int((noisy != same).flatten(1).any(1).sum())

    assert changed(gaussian_fraction=1.0, smooth_fraction=1.0) == 0
    assert changed(gaussian_fraction=0.0, smooth_fraction=1.0) > 295  # but sigmas of almost 0
    assert 120 < changed(gaussian_fraction=0.0, smooth_fraction=0.5) < 180


def test_jpeg_of_a_high_quality_stays_closer() -> None:
    image = patches(1, 32)[0].byte().float()
    errors = [(through_jpeg(image, quality) - image).square().mean() for quality in (30, 60, 98)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("demosaic_fraction", 1.5),
        ("jpeg_fraction", -0.1),
        ("smooth_fraction", 2),
        ("smooth_sigma_max", -1.0),
        ("smooth_sigma_max", 5.0),
        ("jpeg_quality_min", 99),
    ],
)
def test_values_out_of_range_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"training noise: {field} must lie in"):
        TrainingNoise(**{field: value})
