"""`starlight evaluate`: its cells are what the rows return, files agree, and a run resumes."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from strategies import TINY, random_graph, random_image

from hls_export.bundle import pack_bundle
from hls_export.npu import load_chip
from quant import interpret
from starlight.cli import main
from starlight.denoise.denoiser import Denoiser
from starlight.denoise.images import read_image, write_image
from starlight.evaluation import psnr, ssim
from starlight.evaluation.ffdnet import FFDNet, denoise
from starlight.evaluation.suite_run import climb
from starlight.evaluation.suites import noisy_input, scored
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights
from starlight.noise import NoiseCondition

SUITE = """
title = "Small"
threads = 1
sheet_crop = 16

[[data]]
name = "clean"
clean = "images"

[[data]]
name = "camera"
pairs = "pairs"
noisy = "*_real.png"
truth = "*_mean.png"

[[protocol]]
data = "clean"
noise = ["sigma_25"]
input = "float_unclipped"
result = "float"

[[protocol]]
data = "clean"
noise = ["sigma_25", "iso_6400"]
crop = 20

[[protocol]]
data = "camera"

[[model]]
weights = "net.safetensors"

[[model]]
name = "integers"
bundle = "model.slb"
executor = "numpy"

[[model]]
name = "engine"
bundle = "model.slb"
executor = "engine"

[[peer]]
kind = "ffdnet"
weights = "ffdnet.pth"
sigma = "oracle"

[[peer]]
kind = "ffdnet"
weights = "ffdnet.pth"
sigma = "best"
grid = [5.0, 25.0]

[[peer]]
name = "absent"
kind = "ffdnet"
weights = "none.pth"
optional = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all that SUITE names."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "pairs"):
        (tmp_path / name).mkdir()
    for seed, name in enumerate("ab"):
        write_image(tmp_path / "images" / f"{name}.png", random_image(seed, 21, 34))
    truth = random_image(7, 24, 18)
    for name, seed in (("x", 0), ("y", 1)):
        write_image(tmp_path / "pairs" / f"{name}_mean.png", truth)
        noisy = NoiseCondition.parse("sigma_5").apply(truth, seed)
        write_image(tmp_path / "pairs" / f"{name}_real.png", noisy)
    torch.manual_seed(0)
    save_weights(DenoisingNetwork(DenoiserConfig(width=4, levels=1)), tmp_path / "net.safetensors")
    torch.save(FFDNet().state_dict(), tmp_path / "ffdnet.pth")
    (tmp_path / "model.slb").write_bytes(pack_bundle(random_graph(0, TINY), load_chip("reference")))
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def by_cell(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(cell["row"], cell["column"]): cell for cell in report["cells"]}


def test_cells_are_what_the_rows_return(folder: Path) -> None:
    result = run("--suite", "suite.toml", "--out", "out")
    assert result.exit_code == 0
    report = json.loads((folder / "out/report.json").read_text())
    columns = [column["name"] for column in report["columns"]]
    assert columns == [
        "clean sigma_25 float unrounded",
        "clean sigma_25 crop 20",
        "clean iso_6400 crop 20",
        "camera real",
    ]
    rows = [row["name"] for row in report["rows"]]
    assert rows == [
        "noisy input",
        "net.safetensors",
        "integers",
        "engine",
        "ffdnet, sigma oracle",
        "ffdnet, sigma best",
    ]
    assert report["left_out"].keys() == {"absent"}
    assert {(cell["row"], cell["column"]) for cell in report["empty"]} == {
        ("integers", columns[0]),
        ("engine", columns[0]),
        ("ffdnet, sigma oracle", columns[2]),
        ("ffdnet, sigma oracle", columns[3]),
    }
    cells, images = by_cell(report), report["images"]
    assert len(cells) == 6 * 4 - 4

    def image(row: str, column: str, name: str) -> dict[str, Any]:
        (line,) = (
            line
            for line in images
            if (line["row"], line["column"], line["image"]) == (row, column, name)
        )
        return line

    network = Denoiser("net.safetensors")
    clean, condition = read_image("images/a.png"), NoiseCondition.parse("sigma_25")
    noisy = noisy_input(clean, "a.png", condition, "float_unclipped")
    line = image("net.safetensors", columns[0], "a.png")
    estimate = scored(network.denoise(noisy), rounded=False)
    assert (line["psnr"], line["ssim"]) == (psnr(clean, estimate), ssim(clean, estimate))

    middle = clean[:, 7:27][:20]
    noisy = noisy_input(middle, "a.png", condition)
    line = image("integers", columns[1], "a.png")
    assert line["psnr"] == psnr(middle, interpret.run(random_graph(0, TINY), noisy))
    assert image("engine", columns[1], "a.png")["psnr"] == line["psnr"]

    ffdnet = FFDNet()
    ffdnet.load_state_dict(torch.load("ffdnet.pth", weights_only=True))
    line = image("ffdnet, sigma oracle", columns[1], "a.png")
    assert line["psnr"] == psnr(middle, denoise(ffdnet, noisy, 25.0))
    assert line["sigma"] == 25.0

    truth, real = read_image("pairs/y_mean.png"), read_image("pairs/y_real.png")
    assert image("noisy input", "camera real", "y")["psnr"] == psnr(truth, real)
    found = cells["net.safetensors", "camera real"]
    gains = [
        image("net.safetensors", "camera real", name)["psnr"]
        - image("noisy input", "camera real", name)["psnr"]
        for name in "xy"
    ]
    assert found["worst_gain_db"] == min(gains)
    assert found["worse"] == sum(gain < 0 for gain in gains)


def test_files_and_output_agree(folder: Path) -> None:
    (folder / "notes.md").write_text(
        "a\n<!-- evaluation-suite:begin -->\n<!-- evaluation-suite:end -->\n"
    )
    result = run("--suite", "suite.toml", "--out", "out", "--write-docs", "notes.md")
    report = json.loads((folder / "out/report.json").read_text())
    text = (folder / "out/table.md").read_text()
    assert text == f"# Small\n\n{result.stdout}"
    assert result.stdout.strip() in (folder / "notes.md").read_text()
    for cell in report["cells"]:
        assert f"{cell['psnr']:.2f} / {cell['ssim']:.4f}" in text
    for name, lines in (("table", report["cells"]), ("images", report["images"])):
        with (folder / f"out/{name}.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        assert [float(row["psnr"]) for row in read] == [line["psnr"] for line in lines]
    sheet = read_image("out/sheet.png")
    assert sheet.shape == (4 * (16 + 16 + 4) + 16, 7 * (16 + 4), 3)
    np.testing.assert_array_equal(sheet[-20:-4, :16], read_image("pairs/y_mean.png")[4:20, 1:17])
    np.testing.assert_array_equal(sheet[-20:-4, 20:36], read_image("pairs/y_real.png")[4:20, 1:17])


def test_a_run_resumes_from_its_folder(folder: Path) -> None:
    def report() -> dict[str, Any]:
        run("--suite", "suite.toml", "--out", "out", "--json", "report.json")
        return json.loads((folder / "report.json").read_text())

    first = report()
    next((folder / "out/cells").glob("*.json")).unlink()
    write_image("images/b.png", random_image(9, 21, 34))
    second = report()
    again = report()
    assert again == second  # seconds too
    kept = [
        by_cell(first)[key] == cell for key, cell in by_cell(second).items() if "real" in key[1]
    ]
    assert sum(kept) >= 3
    assert all(
        by_cell(first)[key]["psnr"] != cell["psnr"]
        for key, cell in by_cell(second).items()
        if "clean" in key[1]
    )
    cell = next((folder / "out/cells").glob("*.json"))
    cell.write_text("{}")
    result = run("--suite", "suite.toml", "--out", "out")
    assert result.exit_code == 2
    assert "must be as it was written" in result.stderr


def test_options_are_a_suite_of_one_row(folder: Path) -> None:
    options = ("--weights", "net.safetensors", "--conditions", "sigma_25,iso_6400", "--limit", 1)
    result = run("images", *options, "--seed", 3, "--json", "report.json")
    assert result.exit_code == 0
    report = json.loads((folder / "report.json").read_text())
    clean, condition = read_image("images/a.png"), NoiseCondition.parse("iso_6400")
    estimate = Denoiser("net.safetensors").denoise(noisy_input(clean, "a.png", condition, seed=3))
    cell = by_cell(report)["net.safetensors", "images iso_6400 seed 3"]
    assert (cell["images"], cell["psnr"]) == (1, psnr(clean, estimate))
    assert [line["image"] for line in report["images"]] == ["a.png"] * 4


def test_an_infinite_psnr_is_null(folder: Path) -> None:
    network = DenoisingNetwork(DenoiserConfig(width=2, levels=1))
    torch.nn.init.zeros_(network.tail.weight)
    save_weights(network, "identity.safetensors")
    options = ("images", "--weights", "identity.safetensors", "--conditions", "sigma_0")
    for _ in range(2):
        assert run(*options, "--out", "out").exit_code == 0
    report = json.loads((folder / "out/report.json").read_text())
    for cell in report["cells"]:
        assert (cell["psnr"], cell["worse"], cell["worst_gain_db"]) == (None, 0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none", "folder must exist, got none"),
        ("images --peer magic", "'magic' is not one of"),
        ("images --conditions ,", "condition must read sigma_N"),
        ("images --json none/x.json", "folder must exist"),
        ("images --weights none", "source must be a file or one of the shipped weights"),
        ("images --write-docs none.md", "file must exist"),
        ("--suite none.toml", "suite: file must exist, got none.toml"),
        ("--suite net.safetensors", "file must be TOML"),
        ("--suite suite.toml --seed 1", "seed must stand in the suite"),
        ("images --suite suite.toml", "folder must stand in the suite"),
    ],
)
def test_every_error_is_one_line(folder: Path, arguments: str, message: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('noisy = "*_real.png"', 'noisy = "*_raw.png"', "folder must hold *_raw.png"),
        ('truth = "*_mean.png"', 'truth = "*_no.png"', "truth of x_real.png must be x_no.png"),
        ("optional = true", "", "file must exist, got none.pth"),
        ('bundle = "model.slb"', 'bundle = "net.safetensors"', "net.safetensors: bundle: magic"),
        ("crop = 20", 'input = "float_unclipped"\nresult = "float"', "columns must differ"),
        ('name = "integers"', 'name = "absent"', "names of rows must differ, got absent twice"),
        ('name = "integers"', 'name = "noisy input"', "rows must differ, got noisy input twice"),
        ('clean = "images"', 'clean = "$NO_SUCH/x"', "variable NO_SUCH must be set"),
    ],
)
def test_errors_of_a_suite_are_one_line(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    (folder / "suite.toml").write_text(SUITE.replace(old, new))
    result = run("--suite", "suite.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line


def test_the_images_of_a_pair_have_one_shape(folder: Path) -> None:
    write_image("pairs/y_real.png", random_image(0, 24, 19))
    result = run("--suite", "suite.toml")
    assert result.exit_code == 2
    assert "noisy image y must have its truth's shape [24, 18, 3], got [24, 19, 3]" in result.stderr


def test_a_suite_without_a_cell_is_refused(folder: Path) -> None:
    options = ("images", "--peer", "nlm", "--output-range", "float_unclipped")
    pytest.importorskip("cv2", reason="optional peer: pip install 'starlight[peers]'")
    result = run(*options)
    assert result.exit_code == 2
    assert "nlm, sigma estimated must fit a column" in result.stderr


@pytest.mark.parametrize("start", [-10.0, 3.2, 7.0, 99.0])
@pytest.mark.parametrize("peak", [0, 3, 7])
def test_the_search_climbs_to_the_peak(start: float, peak: int) -> None:
    asked = []

    def score(sigma: float) -> float:
        asked.append(sigma)
        return -math.fabs(sigma - peak)

    assert climb([float(sigma) for sigma in range(8)], start, score) == peak
    assert set(asked) <= set(map(float, range(8)))


def test_a_plateau_ends_the_climb() -> None:
    assert climb([1.0, 2.0, 3.0], 2.0, lambda _: 0.0) == 2.0
