"""Batches: a function of seed and step, in the network's units."""

from pathlib import Path

import numpy as np
import pytest
import torch

from starlight.noise.training import TrainingNoise
from starlight.training.data import PatchSampler, load_photographs, to_network, to_pixels


def photographs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for name, height, width in (("a", 20, 33), ("b", 16, 16))
    }


def test_batches_depend_on_seed_and_step_alone() -> None:
    first = PatchSampler(photographs(), patch=16, seed=1)
    again = PatchSampler(photographs(), patch=16, seed=1)
    first.batch(0)
    for step in (7, 3):
        for one, other in zip(first.batch(step), again.batch(step), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(first.batch(7)[1], first.batch(3)[1])
    other_seed = PatchSampler(photographs(), patch=16, seed=2)
    assert not torch.equal(first.batch(7)[1], other_seed.batch(7)[1])


def test_clean_patches_are_pieces_of_photographs_turned_or_flipped() -> None:
    sampler = PatchSampler({"a": photographs()["a"]}, batch_size=12, patch=16)
    _, clean = sampler.batch(0)
    assert clean.shape == (12, 3, 16, 16)
    image = photographs()["a"]
    pieces = {
        turned.tobytes()
        for y in range(image.shape[0] - 15)
        for x in range(image.shape[1] - 15)
        for k in range(4)
        for piece in [np.rot90(image[y : y + 16, x : x + 16], k)]
        for turned in (piece, piece[:, ::-1])
    }
    for patch in to_pixels(clean).permute(0, 2, 3, 1).numpy():
        assert patch.astype(np.uint8).tobytes() in pieces


def test_eight_bit_noise_is_whole_pixels() -> None:
    sampler = PatchSampler(photographs(), TrainingNoise(u8_fraction=1.0), patch=16)
    noisy, _ = sampler.batch(0)
    pixels = to_pixels(noisy)
    assert torch.equal(pixels, pixels.round().clamp(0, 255))


def test_units_are_inverse() -> None:
    pixels = torch.arange(256.0)
    assert torch.equal(to_pixels(to_network(pixels)), pixels)
    assert to_network(pixels).min() == -1


def test_small_photograph_and_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"b must be at least 17 x 17 pixels, got 16 x 16"):
        PatchSampler(photographs(), patch=17)
    with pytest.raises(ValueError, match="at least one"):
        PatchSampler({})


def test_default_photographs_are_not_the_evaluation_ones() -> None:
    names = set(load_photographs([]))
    assert names
    assert not names & {"chelsea", "coffee"}


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder"):
        load_photographs([tmp_path / "none"])
