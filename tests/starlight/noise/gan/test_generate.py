"""The generator as users have it: any size, seeded, tiled without seams, on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from starlight.images import read_pixels
from starlight.noise.baseline import VarianceModel
from starlight.noise.gan import generate as module
from starlight.noise.gan.condition import Units
from starlight.noise.gan.config import GanConfig
from starlight.noise.gan.generate import NoiseGenerator, generate_set
from starlight.noise.gan.networks import Generator
from starlight.noise.pairs import read_pairs

CONFIG = GanConfig(width=4, crop=32)
GAINS = [(1.0, 1.0), (4.0, 1.0), (4.0, 1.0), (4.0, 2.0)]


def make_generator(white: int = 255) -> NoiseGenerator:
    torch.manual_seed(0)
    network = Generator(CONFIG)
    for layer in network.modules():  # statistics and scales that are not the initial ones
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.05, 0.3)
    variances = np.array([[[4e-4, 1e-3, 2e-4]] * 3, [[1e-3, 4e-3, 1e-3]] * 3])
    model = VarianceModel(np.array([[1.0, 1.0], [4.0, 2.0]]), variances)
    baseline = VarianceModel(model.gains, variances[..., :2])
    return NoiseGenerator(network, CONFIG, Units(model, white), baseline, GAINS)


def photo(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(
        0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (16, 24), (33, 2)])
def test_any_size_gives_its_own_shape(height: int, width: int) -> None:
    truth = photo(height, width)
    noisy = make_generator().generate(truth, 2.0)
    assert (noisy.shape, noisy.dtype) == (truth.shape, np.uint8)
    assert not np.array_equal(noisy, truth)


def test_seed_and_gains_decide_the_image() -> None:
    generator, truth = make_generator(), photo(32, 32)
    first = generator.generate(truth, 2.0, 1.0, seed=5)
    assert np.array_equal(first, generator.generate(truth, 2.0, 1.0, seed=5))
    assert not np.array_equal(first, generator.generate(truth, 2.0, 1.0, seed=6))
    assert not np.array_equal(first, generator.generate(truth, 4.0, 1.0, seed=5))
    assert not np.array_equal(first, generator.generate(truth, 2.0, 2.0, seed=5))


def test_sixteen_bits_use_their_levels() -> None:
    noisy = make_generator(65535).generate(photo(32, 32, np.uint16), 2.0)
    assert noisy.dtype == np.uint16
    assert len(np.unique(noisy)) > 1000


def test_tiles_have_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, truth = make_generator(), photo(150, 170)
    whole = generator.generate(truth, 2.0, seed=3).astype(int)
    monkeypatch.setattr(module, "TILE", 64)
    tiled = generator.generate(truth, 2.0, seed=3).astype(int)
    # The order of float sums may move a value across a rounding.
    assert np.abs(whole - tiled).max() <= 1
    assert (whole != tiled).mean() < 1e-3


def test_floating_images_are_the_integer_ones() -> None:
    generator, truth = make_generator(), photo(16, 16)
    noisy = generator.image(truth / 255.0, 2.0, 1.0, 4)
    assert np.array_equal(
        np.floor(noisy * 255.0 + 0.5), generator.generate(truth, 2.0, 1.0, seed=4)
    )


def test_misuse_is_refused() -> None:
    generator = make_generator()
    with pytest.raises(TypeError, match=r"truth must be uint8 .* got uint16"):
        generator.generate(photo(8, 8, np.uint16), 1.0)
    with pytest.raises(ValueError, match=r"truth must have shape \[H, W, 3\], got \[8, 8\]"):
        generator.generate(photo(8, 8)[..., 0], 1.0)
    for gain in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="gains must be positive and finite"):
            generator.generate(photo(8, 8), gain)


def test_a_saved_generator_makes_the_same_images(tmp_path: Path) -> None:
    generator = make_generator()
    generator.save(tmp_path / "generator.safetensors")
    truth = photo(24, 20)
    for source in (tmp_path, tmp_path / "generator.safetensors"):
        loaded = NoiseGenerator.load(source)
        assert loaded.gains == generator.gains
        assert loaded.config == generator.config
        np.testing.assert_array_equal(loaded.baseline.at(2, 1), generator.baseline.at(2, 1))
        assert np.array_equal(
            loaded.generate(truth, 3.0, 1.5, 7), generator.generate(truth, 3, 1.5, 7)
        )


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`starlight noise fit` writes one"):
        NoiseGenerator.load(tmp_path)
    path = tmp_path / "generator.safetensors"
    generator = make_generator()
    generator.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="must be complete safetensors"):
        NoiseGenerator.load(path)
    path.write_bytes(data.replace(b'\\"width\\": 4', b'\\"width\\": 8'))
    with pytest.raises(ValueError, match=r"content must fit together, got .*size mismatch"):
        NoiseGenerator.load(path)
    path.write_bytes(data.replace(b"starlight.noise_generator", b"starlight.noise_generatix"))
    with pytest.raises(ValueError, match=r"metadata must hold starlight\.noise_generator"):
        NoiseGenerator.load(path)
    with torch.no_grad():
        next(generator.network.parameters()).fill_(float("nan"))
    generator.save(path)
    with pytest.raises(ValueError, match="weights must be finite"):
        NoiseGenerator.load(path)


def test_a_generated_set_is_a_pair_set_with_recorded_gains(tmp_path: Path) -> None:
    generator = make_generator()
    images = [("a", photo(16, 16)), ("b", photo(20, 12))]
    generate_set(generator, images, tmp_path / "set", per_image=8, seed=2)
    pairs = read_pairs(tmp_path / "set").pairs
    assert len(pairs) == 16
    assert {pair.source for pair in pairs} == {"generated"}
    gains = {(pair.analog_gain, pair.digital_gain) for pair in pairs}
    assert len(gains) > 1
    assert gains <= set(GAINS)
    assert np.array_equal(read_pixels(pairs[0].truth), images[0][1])
    assert len({read_pixels(pair.noise).tobytes() for pair in pairs}) == 16
    # What an image gets depends on its name and the seed alone.
    generate_set(generator, images[1:], tmp_path / "alone", per_image=8, seed=2)
    for pair, alone in zip(pairs[8:], read_pairs(tmp_path / "alone").pairs, strict=True):
        assert pair.analog_gain == alone.analog_gain
        assert np.array_equal(read_pixels(pair.noise), read_pixels(alone.noise))
    generate_set(generator, images[1:], tmp_path / "other", per_image=1, seed=3)
    other = read_pairs(tmp_path / "other").pairs[0]
    assert not np.array_equal(read_pixels(other.noise), read_pixels(pairs[8].noise))
    with pytest.raises(ValueError, match="names must differ, got a twice"):
        generate_set(generator, [images[0], images[0]], tmp_path / "twice", 1)
    with pytest.raises(ValueError, match="images must be at least one"):
        generate_set(generator, [], tmp_path / "empty", 1)
