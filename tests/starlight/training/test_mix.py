"""Pairs of several sources in one batch, a function of (seed, step, sample)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from starlight.distributed import World
from starlight.images import write_pixels
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import Pair
from starlight.noise.training import TrainingNoise
from starlight.training.mix import CleanSource, Mix, PairSource


def pair(folder: Path, name: str, truth: np.ndarray, noise: np.ndarray) -> Pair:
    files = [folder / f"{name}_{kind}.png" for kind in ("truth", "noise")]
    for file, pixels in zip(files, (truth, noise), strict=True):
        write_pixels(file, pixels)
    return Pair(name, *files, analog_gain=2.0)


def random_pixels(seed: int, *shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """The noise is the truth's complement, so a patch of one gives that of the other."""
    made = []
    for seed, dtype in enumerate((np.uint8, np.uint16)):
        truth = random_pixels(seed, 20, 24, 3, dtype=dtype)
        made.append(pair(tmp_path, f"scene{seed}", truth, np.iinfo(dtype).max - truth))
    return made


def test_truth_and_noise_are_cut_and_turned_alike_in_8_and_16_bits(pairs: list[Pair]) -> None:
    source = PairSource(PairImages(pairs))
    assert source.count == 2
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noisy, clean = source.sample(8, generator)
        assert noisy.shape == clean.shape == (3, 8, 8)
        torch.testing.assert_close(noisy, 255 - clean, rtol=0, atol=1e-4)
        assert clean.min() >= 0
        assert clean.max() <= 255


def test_files_beyond_the_memory_are_read_again_with_the_same_samples(pairs: list[Pair]) -> None:
    samples = [
        PairSource(PairImages(pairs, memory)).sample(8, torch.Generator().manual_seed(seed))
        for memory in (1, 1 << 20)
        for seed in range(6)
    ]
    for few, many in zip(samples[:6], samples[6:], strict=True):
        assert torch.equal(few[0], many[0])
        assert torch.equal(few[1], many[1])


def test_batches_depend_on_seed_and_step_and_processes_share_them(pairs: list[Pair]) -> None:
    sources = [
        (PairSource(PairImages(pairs)), 1.0),
        (CleanSource({"a": random_pixels(9, 20, 20, 3)}), 2.0),
    ]
    whole = Mix(sources, batch_size=6, patch=8, seed=3)
    again = Mix(sources, batch_size=6, patch=8, seed=3)
    again.batch(0)
    noisy, clean = whole.batch(7)
    assert noisy.shape == (6, 3, 8, 8)
    parts = [
        Mix(sources, batch_size=6, patch=8, seed=3, world=World(rank, 3)).part(7)
        for rank in range(3)
    ]
    assert torch.equal(torch.cat([part[0] for part in parts]), noisy)
    assert torch.equal(torch.cat([part[1] for part in parts]), clean)
    assert torch.equal(again.batch(7)[0], noisy)
    assert not torch.equal(again.batch(8)[1], clean)
    assert not torch.equal(Mix(sources, 6, 8, seed=4).batch(7)[1], clean)
    assert not torch.equal(whole.check_part(7)[1], clean)


def test_sources_are_drawn_by_weight() -> None:
    dark, light = (CleanSource({"a": np.full((8, 8, 3), v, np.uint8)}) for v in (0, 255))
    mix = Mix([(dark, 1.0), (light, 3.0)], batch_size=400, patch=8)
    _, clean = mix.batch(0)
    share = (clean[:, 0, 0, 0] > 0).double().mean().item()
    assert 0.65 < share < 0.85


def test_images_are_drawn_by_area() -> None:
    images = {"small": np.zeros((8, 8, 3), np.uint8), "large": np.full((8, 56, 3), 255, np.uint8)}
    quiet = TrainingNoise(gaussian_fraction=1.0, sigma_max=0.0)
    _, clean = Mix([(CleanSource(images, quiet), 1.0)], batch_size=400, patch=8).batch(0)
    assert 0.8 < (clean[:, 0, 0, 0] > 0).double().mean().item() < 0.95


def test_zoom_makes_patches_softer() -> None:
    """A chequerboard's neighbours differ by 255; twice as large, by less and less often."""
    board = ((np.indices((40, 40)).sum(0) % 2) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    quiet = TrainingNoise(gaussian_fraction=1.0, sigma_max=0.0)

    def contrast(zoom_max: float) -> torch.Tensor:
        source = CleanSource({"board": board}, quiet, zoom_max)
        _, clean = Mix([(source, 1.0)], batch_size=60, patch=16).batch(0)
        assert clean.shape == (60, 3, 16, 16)
        assert clean.abs().max() <= 1.0
        return 128 * clean.diff(dim=3).abs().mean((1, 2, 3))

    assert (contrast(1.0) > 254).all()
    zoomed = contrast(2.0)
    assert 60 < zoomed.min() < 100
    assert zoomed.mean() < 150
    with pytest.raises(ValueError, match=r"zoom_max must lie in 1\.\.4, got 0\.5"):
        CleanSource({"board": board}, quiet, 0.5)


def test_unusable_data_is_refused_by_name(tmp_path: Path, pairs: list[Pair]) -> None:
    with pytest.raises(ValueError, match="sources must be at least one"):
        Mix([])
    with pytest.raises(ValueError, match=r"scene0_noise\.png must be at least 21 x 21 pixels"):
        Mix([(PairSource(PairImages(pairs)), 1.0)], patch=21)
    with pytest.raises(ValueError, match="batch must be a multiple of 3 processes, got 8"):
        Mix([(PairSource(PairImages(pairs)), 1.0)], patch=8, world=World(0, 3))
    with pytest.raises(ValueError, match="weight must be positive, got 0"):
        Mix([(PairSource(PairImages(pairs)), 0.0)], patch=8)
    grey = pair(tmp_path, "grey", random_pixels(0, 9, 9), random_pixels(1, 9, 9))
    with pytest.raises(ValueError, match=r"grey_truth\.png must be RGB, got one plane"):
        PairImages([grey])
    unlike = pair(tmp_path, "unlike", random_pixels(0, 9, 9, 3), random_pixels(1, 9, 8, 3))
    with pytest.raises(ValueError, match=r"must have the truth's size and depth \[9, 9, 3\]"):
        PairImages([unlike])
    pairs[1].noise.write_bytes(pairs[1].noise.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"scene1_noise\.png must be an intact image file"):
        PairSource(PairImages(pairs))
