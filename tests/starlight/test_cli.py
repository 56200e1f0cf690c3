"""The command: what it writes, and one line for every error."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from strategies import random_image

from starlight.cli import main
from starlight.denoise.denoiser import Denoiser
from starlight.denoise.images import read_image, write_image
from starlight.evaluation import image_seed
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights
from starlight.noise import NoiseCondition


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/{a,b}.png and net.safetensors."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "images").mkdir()
    for seed, name in enumerate("ab"):
        write_image(folder / "images" / f"{name}.png", random_image(seed, 21, 34))
    torch.manual_seed(0)
    save_weights(DenoisingNetwork(DenoiserConfig(width=4, levels=1)), folder / "net.safetensors")
    return folder


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def test_denoise_writes_what_the_denoiser_returns(folder: Path, tmp_path: Path) -> None:
    weights = folder / "net.safetensors"
    result = run("denoise", folder / "images", tmp_path / "out", "--weights", weights, "--tile", 16)
    assert result.exit_code == 0
    assert result.output.startswith("2 denoised: ")
    for name in ("a.png", "b.png"):
        wanted = Denoiser(weights, tile=16).denoise(read_image(folder / "images" / name))
        np.testing.assert_array_equal(read_image(tmp_path / "out" / name), wanted)


def test_noise_of_a_file_has_the_seed_and_of_a_folder_one_per_name(
    folder: Path, tmp_path: Path
) -> None:
    condition = NoiseCondition.parse("iso_6400")
    clean = folder / "images" / "a.png"
    one = run("noise", "add", clean, tmp_path / "x.png", "--condition", "iso_6400", "--seed", 4)
    assert one.exit_code == 0
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.png"), condition.apply(read_image(clean), 4)
    )
    many = run("noise", "add", clean.parent, tmp_path / "y", "--condition", "iso_6400", "--seed", 4)
    assert many.exit_code == 0
    np.testing.assert_array_equal(
        read_image(tmp_path / "y" / "a.png"),
        condition.apply(read_image(clean), image_seed("a.png", "iso_6400", 4)),
    )


def test_help_lists_every_command() -> None:
    result = run("--help")
    for command in ("denoise", "evaluate", "noise", "train"):
        assert f"\n  {command} " in result.output
    assert "Usage: main train" in run("train", "--help").output
    for command in ("add", "fit", "generate", "judge"):
        assert f"\n  {command} " in run("noise", "--help").output
        assert f"Usage: main noise {command}" in run("noise", command, "--help").output
    assert "truth" not in run("noise", "--help").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("denoise NONE.png out.png --weights WEIGHTS", "source must exist"),
        ("denoise IMAGE out.gif --weights WEIGHTS", "name must end in one of"),
        ("denoise IMAGE out.png --weights nothing", "weights"),
        ("denoise IMAGE out.png --weights IMAGE", "safetensors"),
        ("denoise IMAGE out.png --weights WEIGHTS --tile 0", "tile must be at least 1, got 0"),
        ("denoise IMAGE none/out.png --weights WEIGHTS", "folder must exist"),
        ("denoise WEIGHTS out.png --weights WEIGHTS", "must be an intact image file"),
        ("noise add IMAGE out.png --condition loud", "condition must read sigma_N"),
        ("noise add IMAGE out.png --condition sigma_5 --seed -1", "seed must lie in"),
        (
            "noise add IMAGE out.png --condition iso_6400 --profile WEIGHTS",
            "must be a JSON profile",
        ),
    ],
)
def test_every_error_is_one_line_and_exit_code_2(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "IMAGE": folder / "images" / "a.png",
        "WEIGHTS": folder / "net.safetensors",
    }
    words = [names.get(word, word) for word in arguments.split()]
    result = run(*words)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if "image/s" not in line]
    assert line.startswith("Error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running the code."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_light_imports_stay_light(folder: Path, tmp_path: Path) -> None:
    heavy = {"torch", "numpy", "PIL", "pydantic"}
    assert not loaded_after("import starlight, starlight.errors, starlight.files") & heavy
    assert not loaded_after("import starlight.cli") & heavy
    images, out = str(folder / "images"), str(tmp_path / "out")
    arguments = ["noise", "add", images, out, "--condition", "iso_6400"]
    code = f"from starlight.cli import main\nmain({arguments}, standalone_mode=False)"
    loaded = loaded_after(code)
    assert "starlight.noise.conditions" in loaded
    assert not loaded & {"torch", "quant", "hls_export"}
    assert not loaded_after("import starlight.denoise.denoiser") & {"quant", "hls_export"}
