"""`starlight noise fit | generate | judge` from end to end, and what they refuse."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from starlight.cli import main
from starlight.denoise.images import write_image
from starlight.images import read_pixels, write_pixels
from starlight.noise.gan.generate import NoiseGenerator
from starlight.noise.pairs import PairSet, read_pairs

TINY = ["--width", "4", "--crop", "16", "--batch", "2", "--steps", "2", "--sheet-steps", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["noise", *map(str, arguments)])


@pytest.fixture(scope="module")
def fitted(pair_set: PairSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit")
    report = out / "report.json"
    result = run(
        "fit", pair_set.folder, "--out", out / "run", *TINY, "--held-out", 1, "--json", report
    )
    assert result.exit_code == 4, result.output
    assert "steps after 2 steps; not converged" in result.output
    summary = json.loads(report.read_text())
    assert summary == json.loads((out / "run" / "fit.json").read_text())
    assert (summary["ending"], summary["exit_code"], summary["steps"]) == ("steps", 4, 2)
    assert summary["training_pairs"] == 6
    assert summary["watched"]["akld"] > 0
    return out / "run"


def test_a_fit_goes_on_only_when_told_to(pair_set: PairSet, fitted: Path, tmp_path: Path) -> None:
    again = run("fit", pair_set.folder, "--out", fitted, *TINY)
    assert again.exit_code == 2
    assert "add --resume" in again.output
    shutil.copytree(fitted, tmp_path / "run")
    resumed = run(
        "fit", pair_set.folder, "--out", tmp_path / "run", *TINY, "--held-out", 1, "--resume"
    )
    assert resumed.exit_code == 4
    assert NoiseGenerator.load(tmp_path / "run").gains == NoiseGenerator.load(fitted).gains


def test_generate_makes_a_pair_set(fitted: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (20, 24, 3), np.uint8)
        write_image(clean / name, pixels)
    result = run("generate", clean, tmp_path / "set", "--model", fitted, "--per-image", 2)
    assert result.exit_code == 0, result.output
    assert "4 noise images of 2 clean ones" in result.output
    pairs = read_pairs(tmp_path / "set").pairs
    assert len(pairs) == 4
    assert np.array_equal(read_pixels(pairs[0].truth), read_pixels(clean / "a.png"))
    again = run("generate", clean, tmp_path / "set", "--model", fitted)
    assert again.exit_code == 2
    assert "OUT must be a new or empty folder" in again.output


def test_a_sixteen_bit_generator_takes_photographs_of_eight_bits(
    pair_set_maker: Callable[..., PairSet], tmp_path: Path
) -> None:
    pairs = pair_set_maker(tmp_path / "pairs", scenes=1, side=16, dtype=np.uint16)
    assert run("fit", pairs.folder, "--out", tmp_path / "run", *TINY).exit_code == 4
    clean = tmp_path / "clean"
    clean.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    write_image(clean / "eight.png", pixels)
    write_image(clean / "lossless.webp", pixels)
    write_pixels(clean / "sixteen.png", pixels.astype(np.uint16) * 257)
    result = run("generate", clean, tmp_path / "set", "--model", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for pair in read_pairs(tmp_path / "set").pairs:
        assert np.array_equal(read_pixels(pair.truth), pixels.astype(np.uint16) * 257)


def test_judge_reports_models_beside_real_noise(
    pair_set: PairSet, fitted: Path, tmp_path: Path
) -> None:
    report, figure = tmp_path / "judged.json", tmp_path / "judged.png"
    result = run(
        *("judge", pair_set.folder, "--model", fitted, "--samples", 2, "--limit", 4),
        *("--json", report, "--figure", figure),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    names = ["real", "generator", "Poisson-Gaussian", "noise level function"]
    assert list(found["noise"]) == names
    assert found["pairs"] == 4
    assert found["noise"]["real"]["akld"] is None
    for name in names[1:]:
        figures = found["noise"][name]
        assert name in result.output
        assert 0 < figures["akld"] < 4
        assert figures["kl"] > 0
        assert set(figures["akld_by_gain"]) <= {"1 x 1", "4 x 1", "4 x 2"}
    assert found["noise"]["real"]["spatial_correlation"]["0,1"] == pytest.approx(0.5, abs=0.1)
    white = found["noise"]["Poisson-Gaussian"]["spatial_correlation"]["0,1"]
    assert white == pytest.approx(0.0, abs=0.1)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_judge_without_a_model_calibrates_on_the_first_scenes(pair_set: PairSet) -> None:
    result = run("judge", pair_set.folder, "--samples", 2)
    assert result.exit_code == 0, result.output
    assert "Poisson-Gaussian" in result.output
    assert "generator" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit NONE --out RUN", "folder must hold pairs.csv, got no such folder"),
        ("fit PAIRS --out RUN --crop 40", "crop: Value error, crop must be a multiple of 16"),
        ("fit PAIRS --out RUN --crop 128 --steps 1", "must be at least 128 x 128 pixels"),
        ("fit PAIRS --out RUN --steps 0", "steps: Input should be greater than or equal to 1"),
        ("fit PAIRS --out RUN --held-out 3", "held-out scenes must be fewer than the 3 scenes"),
        ("fit PAIRS --out RUN --json NONE/x.json", "folder must exist"),
        ("fit PAIRS --out RUN --device moon", "device must be"),
        ("generate PAIRS OUT --model NONE", "`starlight noise fit` writes one"),
        ("judge NONE", "folder must hold pairs.csv"),
        ("judge PAIRS --model NONE", "`starlight noise fit` writes one"),
        ("judge PAIRS --json NONE/x.json", "folder must exist"),
    ],
)
def test_misuse_is_one_line_and_code_2(
    pair_set: PairSet, tmp_path: Path, arguments: str, message: str
) -> None:
    places = {
        "PAIRS": str(pair_set.folder),
        "NONE": str(tmp_path / "none"),
        "RUN": str(tmp_path / "run"),
        "OUT": str(tmp_path / "out"),
    }
    text = arguments
    for name, path in places.items():
        text = text.replace(name, path)
    result = run(*text.split())
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_two_processes_fit_as_one(pair_set: PairSet, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "starlight", "noise", "fit", pair_set.folder, *TINY]
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "run"), "--processes", "2", "--held-out", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 4, done.stderr
    assert done.stdout.count("steps after 2 steps") == 1
    generator = NoiseGenerator.load(tmp_path / "run")
    truth = read_pixels(pair_set.pairs[0].truth)
    assert generator.generate(truth, 2.0).shape == truth.shape
