"""Crops, units and condition planes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starlight.images import read_pixels, write_pixels
from starlight.noise.baseline import VarianceModel
from starlight.noise.gan.condition import Units, planes
from starlight.noise.gan.data import CropSampler, scene_split
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import Pair, PairSet


def test_crops_are_windows_of_the_pairs_on_the_grid(pair_set: PairSet) -> None:
    images = PairImages(pair_set.pairs)
    assert images.white == 255
    crops = CropSampler(images, 32, seed=3).batch(5, range(12))
    assert crops.truth.shape == crops.noisy.shape == (12, 3, 32, 32)
    found = set()
    for truth, noisy, gains in zip(crops.truth, crops.noisy, crops.gains, strict=True):
        places = [
            (pair.noise, top, left)
            for pair in pair_set.pairs
            for top in range(0, 33, 4)
            for left in range(0, 33, 4)
            if np.array_equal(window(pair.noise, top, left), (noisy * 255).round().byte())
        ]
        assert len(places) == 1
        path, top, left = places[0]
        pair = next(pair for pair in pair_set.pairs if pair.noise == path)
        assert np.array_equal(window(pair.truth, top, left), (truth * 255).round().byte())
        assert gains.tolist() == [pair.analog_gain, pair.digital_gain]
        found.add(places[0])
    assert len(found) > 8


def window(path: Path, top: int, left: int) -> np.ndarray:
    return read_pixels(path)[top : top + 32, left : left + 32].transpose(2, 0, 1)


def test_a_crop_depends_on_seed_step_and_place_alone(pair_set: PairSet) -> None:
    images = PairImages(pair_set.pairs, limit_bytes=0)
    whole = CropSampler(images, 32).batch(7, range(6))
    parts = [CropSampler(PairImages(pair_set.pairs), 32).batch(7, range(i, i + 3)) for i in (0, 3)]
    assert torch.equal(whole.noisy, torch.cat([part.noisy for part in parts]))
    assert not torch.equal(whole.noisy, CropSampler(images, 32).batch(8, range(6)).noisy)
    assert not torch.equal(whole.noisy, CropSampler(images, 32, seed=1).batch(7, range(6)).noisy)


def test_unusable_images_are_named(pair_set: PairSet, tmp_path: Path) -> None:
    good = pair_set.pairs[0]
    for name, pixels in {
        "mosaic.png": np.zeros((64, 64), np.uint8),
        "small.png": np.zeros((32, 64, 3), np.uint8),
        "deep.png": np.zeros((64, 64, 3), np.uint16),
    }.items():
        write_pixels(tmp_path / name, pixels)
    cases = {
        "mosaic.png": "mosaic.png must be RGB, got one plane",
        "small.png": r"must have the truth's size and depth \[64, 64, 3\] uint8, got \[32, 64, 3\]",
        "deep.png": "got .* uint16",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            PairImages([Pair("x", good.truth, tmp_path / name, 1.0)])
    deep = Pair("x", tmp_path / "deep.png", tmp_path / "deep.png", 1.0)
    with pytest.raises(ValueError, match="depth must be one for all pairs"):
        list(PairImages([good, deep]))
    with pytest.raises(ValueError, match="pairs must be at least one"):
        PairImages([])
    with pytest.raises(ValueError, match="must be at least 80 x 80 pixels, got 64 x 64"):
        CropSampler(PairImages([good]), 80)


def test_split_goes_between_scenes(pair_set: PairSet) -> None:
    training, held_out = scene_split(pair_set, 1)
    assert {pair.scene for pair in training} == {"scene0", "scene1"}
    assert {pair.scene for pair in held_out} == {"scene2"}
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="held-out scenes must be fewer than the 3"):
            scene_split(pair_set, wrong)


MODEL = VarianceModel(
    np.array([[1.0, 1.0], [16.0, 2.0]]),
    np.random.default_rng(0).uniform(1e-5, 1e-2, (2, 3, 5)),
)


@given(st.integers(0, 2**32), st.floats(1.0, 16.0), st.floats(1.0, 2.0))
def test_deviations_are_those_of_the_model(seed: int, analog: float, digital: float) -> None:
    truth = np.random.default_rng(seed).random((4, 5, 3)).astype(np.float32)
    found = Units(MODEL, 255).deviations(
        torch.from_numpy(truth).permute(2, 0, 1)[None], torch.tensor([[analog, digital]])
    )
    wanted = np.sqrt(MODEL.variance(truth, *np.float32([analog, digital]).tolist()))
    np.testing.assert_allclose(found[0].permute(1, 2, 0), wanted, rtol=1e-5)


def test_white_itself_has_a_deviation() -> None:
    found = Units(MODEL, 255).deviations(torch.ones(1, 3, 1, 1), torch.ones(1, 2))
    np.testing.assert_allclose(found[0, :, 0, 0], np.sqrt(MODEL.variances[0, :, -1]), rtol=1e-5)


@pytest.mark.parametrize(("sign", "clipped"), [(1.0, [1.0, 0.0]), (-1.0, [0.0, -1.0])])
def test_images_are_levels_and_the_gradient_passes_unless_it_leads_out_of_range(
    sign: float, clipped: list[float]
) -> None:
    truth = torch.tensor([0.5, 0.5, 0.999, 0.001]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    residual = torch.tensor([0.3, -1.7, 2.0, -2.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2).clone()
    residual.requires_grad_()
    image = Units(MODEL, 255).image(truth, residual, torch.full((1, 3, 2, 2), 0.01))
    levels = (image * 255).round()
    assert torch.allclose(image * 255, levels, atol=1e-4)
    assert levels[0, 0].flatten().tolist() == [128, 123, 255, 0]
    (sign * image).sum().backward()
    wanted = 0.01 * torch.tensor([sign, sign, *clipped])
    torch.testing.assert_close(residual.grad[0, 0].flatten(), wanted)


def test_condition_planes_are_truth_and_log_gains() -> None:
    truth = torch.rand(2, 3, 4, 4)
    found = planes(truth, torch.tensor([[1.0, 2.0], [16.0, 4.0]]))
    assert found.shape == (2, 6, 4, 4)
    assert torch.equal(found[:, :3], 2 * truth - 1)
    assert found[0, 3:, 1, 2].tolist() == [0.0, 0.25, 0.25]
    assert found[1, 3:, 3, 0].tolist() == [1.0, 0.5, 1.5]
