"""The benchmark of training sets on the smallest camera, generator and network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import data_mix
from starlight.denoise.images import write_image
from starlight.images import write_pixels
from starlight.noise.baseline import VarianceModel
from starlight.noise.gan.condition import Units
from starlight.noise.gan.config import GanConfig
from starlight.noise.gan.generate import NoiseGenerator
from starlight.noise.gan.networks import Generator
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import Pair, read_pairs, write_pairs

SMALL = ("--quick", "--steps", 2, "--third", 2)


def pair_set(folder: Path, gain: float) -> Path:
    """One scene of 16 bits with noise of one gain."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(int(gain))
    truth = random.integers(10_000, 50_000, (40, 36, 3), dtype=np.uint16)
    noise = truth + random.normal(0, 1000 * gain, truth.shape).astype(np.int64)
    write_pixels(folder / "truth.png", truth)
    write_pixels(folder / "noise.png", noise.clip(0, 65535).astype(np.uint16))
    write_pairs(folder, [Pair("scene", folder / "truth.png", folder / "noise.png", gain)])
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """(the noise_gan benchmark's folder, photographs): the camera has seen one of three."""
    camera, photographs = tmp_path / "camera", tmp_path / "photographs"
    images = PairImages(read_pairs(pair_set(camera / "training" / "pairs", 2.0)).pairs)
    pair_set(camera / "held_out", 3.0)
    for folder, names in ((camera / "clean" / "training", "a"), (photographs, "abc")):
        folder.mkdir(parents=True)
        for name in names:
            write_image(folder / f"{name}.png", np.full((40, 40, 3), ord(name), np.uint8))
    torch.manual_seed(0)
    config = GanConfig(width=2, crop=16)
    model = VarianceModel.fit(images)
    generator = NoiseGenerator(
        Generator(config), config, Units(model, images.white), model, [(2.0, 1.0)]
    )
    (camera / "fit").mkdir()
    generator.save(camera / "fit" / "generator.safetensors")
    return camera, photographs


def run(tmp_path: Path, folders: tuple[Path, Path], *more: object) -> Result:
    camera, photographs = folders
    paths = ("--camera", camera, "--photographs", photographs, "--out", tmp_path / "out")
    arguments = [str(argument) for argument in (*paths, *SMALL, *more)]
    return CliRunner().invoke(data_mix.main, arguments)


def test_four_sets_are_trained_on_and_measured_and_nothing_is_made_twice(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    result = run(tmp_path, folders, "--json", tmp_path / "first.json")
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "first.json").read_text())["data_mix"]
    assert [row["case"] for row in figures["rows"]] == list(data_mix.CASES)
    for row in figures["rows"]:
        (only,) = row["results"]
        assert only["by_gain"] == {"3.0": pytest.approx(only["psnr"])}
    made = read_pairs(tmp_path / "out" / "generated").pairs
    assert {pair.scene for pair in made} == {"b", "c"}  # the camera has seen a
    calibrated = read_pairs(tmp_path / "out" / "poisson_gaussian").pairs
    assert [pair.analog_gain for pair in calibrated] == [pair.analog_gain for pair in made]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    again = run(tmp_path, folders, "--json", tmp_path / "second.json")
    assert again.exit_code == 0, again.output
    second = json.loads((tmp_path / "second.json").read_text())["data_mix"]
    assert second["rows"] == figures["rows"]
    pictures = {path: at for path, at in before.items() if path.name != "loss.png"}
    assert all(path.stat().st_mtime_ns == at for path, at in pictures.items())


def test_what_is_missing_is_one_line(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (folders[0] / "fit" / "generator.safetensors").unlink()
    assert run(tmp_path, folders, "--only", "captured").exit_code == 0
    result = run(tmp_path, folders)
    assert result.exit_code == 2
    assert "`starlight noise fit` writes one" in result.output
    few = run(tmp_path, folders, "--third", 3)
    assert few.exit_code == 2
    assert "must be at least 3, got 2" in few.output
