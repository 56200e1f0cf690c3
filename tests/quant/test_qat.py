"""The main job end to end on a tiny network, and what it says to unusable input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from hls_export.bundle import read_bundle
from hls_export.npu import CHIPS, load_chip
from quant.graph_files import load_graph
from quant.interpret import run as interpret
from quant.qat import CALIBRATION_BATCHES, calibration_batches, chosen_precision, main
from quant.quality import CONDITIONS
from starlight.images import write_pixels
from starlight.models import PRESETS, DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import Pair
from starlight.noise.training import TrainingNoise
from starlight.training.mix import CleanSource, Mix, PairSource

SMALL = ["--patch", "32", "--batch", "1", "--crop", "48", "--threads", "1"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(DenoisingNetwork(PRESETS["tiny"]), path)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in (*arguments, *SMALL)])


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("run") / "qat-small"
    figures = folder.parent / "figures.json"
    result = invoke("--weights", weights, "--out", folder, "--steps", 3, "--json", figures)
    return folder, result


def test_run_ends_with_files_and_the_verdict(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-3] == f"report:    {folder / 'report.html'}"
    assert lines[-2].startswith(f"bundle:    {folder / 'model.slb'} (")
    assert lines[-1] == "bit check: PASS"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt", "graph.json", "graph.npz", "layers.csv", "layers.json", "metrics.json",
        "model.h", "model.slb", "report.html", "weights.bin",
    }  # fmt: skip


def test_metrics_hold_every_figure(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert json.loads((folder.parent / "figures.json").read_text()) == metrics
    names = {condition.name for condition in CONDITIONS}
    assert names == {
        "sigma_5", "sigma_15", "sigma_25", "sigma_50", "iso_1600", "iso_6400", "iso_25600",
    }  # fmt: skip
    assert {"float", "ptq", "qat"} <= set(metrics["psnr"])
    assert all(set(figures) == names for figures in metrics["psnr"].values())
    statuses = {row["check"]: row["verdict"] for row in metrics["bit_check"]}
    assert statuses.pop("QAT model in float64 on image = numpy") == "PASS"
    assert "FAIL" not in statuses.values()
    assert metrics["settings"]["steps_done"] == 3
    for schedule, cost in metrics["costs"].items():
        assert (cost["width"], cost["height"]) == (1920, 1080)
        assert cost["milliseconds"] > 0 < cost["dram_bytes"]
        line = f"{schedule}, 1920x1080: {cost['milliseconds']:.2f} ms, "
        assert line in result.output
    assert metrics["bundle"]["bytes"] == (folder / "model.slb").stat().st_size


def test_metrics_hold_ranges_sensitivity_and_the_worst_picture(
    finished: tuple[Path, Result],
) -> None:
    folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    graph = load_graph(folder / "graph.json")
    names = [buffer.name for buffer in graph.buffers]
    assert [row["name"] for row in metrics["ranges"]] == names
    assert {*metrics["sensitivity"], "image"} == set(names)
    assert all(loss >= 0 for loss in metrics["sensitivity"].values())
    worst = metrics["worst"]
    lost = worst["psnr"]["float"] - worst["psnr"]["qat"]
    condition = worst["condition"]
    assert lost >= metrics["psnr"]["float"][condition] - metrics["psnr"]["qat"][condition]
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert f"Worst of all evaluated: {worst['photograph']}, {condition}" in report


def test_bundle_graph_and_report_are_the_same_network(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    graph = load_graph(folder / "graph.json")
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    bundle = read_bundle(folder / "model.slb")
    assert np.array_equal(interpret(bundle.graph(), image), interpret(graph, image))
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "PASS" in report
    assert "iso_25600" in report


def test_resuming_a_finished_run_gives_the_same_figures(
    finished: tuple[Path, Result], weights: Path
) -> None:
    folder, _ = finished
    before = json.loads((folder / "metrics.json").read_text())
    bundle = (folder / "model.slb").read_bytes()
    result = invoke("--weights", weights, "--out", folder, "--steps", 3, "--resume")
    assert result.exit_code == 0, result.output
    after = json.loads((folder / "metrics.json").read_text())
    assert after["psnr"] == before["psnr"]
    assert (folder / "model.slb").read_bytes() == bundle


def test_interrupted_and_resumed_gives_the_same_integers(weights: Path, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    arguments = ["--weights", weights, "--steps", 30, "--minutes", 100, "--threads", 1]
    assert invoke(*arguments, "--out", whole).exit_code == 0
    arguments += ["--out", folder]
    process = subprocess.Popen(
        [sys.executable, "-m", "quant.qat", *map(str, arguments), *SMALL],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    seen = b""
    while b"loss" not in seen:  # training is under way
        piece = process.stderr.read1(4096)  # type: ignore[attr-defined]
        assert piece, seen
        seen += piece
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, seen + rest
    assert b"--resume goes on from" in rest
    assert b"Traceback" not in seen + rest
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
    result = invoke(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    for name in ("model.slb", "graph.npz", "weights.bin"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_two_processes_train_one_network_and_one_does_the_rest(
    weights: Path, tmp_path: Path
) -> None:
    arguments = ["--weights", weights, "--out", tmp_path / "run", "--limit", 1, "--steps", 2]
    shared = ["--batch", "2", "--processes", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "quant.qat", *map(str, arguments), *SMALL, *shared],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("bit check: PASS") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["settings"]["steps_done"] == 2


def config_weights(folder: Path, **choices: object) -> Path:
    path = folder / "other.safetensors"
    config = DenoiserConfig(width=4, levels=2, **choices)  # type: ignore[arg-type]
    save_weights(DenoisingNetwork(config), path)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "missing.safetensors"], "source must be a file or one of the shipped"),
        (["--chip", "missing"], "reference"),
        (["--data", "missing"], "folder must exist"),
        (["--evaluation", "missing"], "folder must exist"),
        (["--resume"], "must exist to resume"),
        (["--steps", "0"], "Invalid value for '--steps'"),
        (["--patch", "30"], "multiples of 4"),
        (["--learning-rate", "-1"], "learning_rate"),
        (["--minutes", "0"], "minutes"),
        (["--no-such-option"], "No such option"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_unusable_options_are_one_line_and_leave_nothing(
    weights: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    arguments = [*SMALL, "--weights", str(weights), "--out", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert not list(tmp_path.iterdir())


def test_a_chip_that_holds_no_tile_is_refused_before_training(
    weights: Path, tmp_path: Path
) -> None:
    text = (CHIPS / "reference.toml").read_text(encoding="utf-8")
    chip = tmp_path / "tight.toml"
    chip.write_text(text.replace("sram_bytes = 2_097_152", "sram_bytes = 40"), encoding="utf-8")
    result = invoke("--weights", weights, "--chip", chip, "--out", tmp_path / "run")
    assert result.exit_code == 2
    message = "chip reference, layer head: SRAM of the smallest tile must be at most 32 bytes, got "
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_choice_without_integer_form_is_refused(tmp_path: Path) -> None:
    result = invoke("--weights", config_weights(tmp_path, skip="module"), "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "integer form, got skip=module" in result.output
    assert not (tmp_path / "run").exists()


def test_an_empty_and_a_damaged_evaluation_folder_are_refused(
    weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    arguments = ("--weights", weights, "--evaluation", folder, "--out", tmp_path / "run")
    assert "folder must hold a file" in invoke(*arguments).output
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "cut.png" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "told", "expected"),
    [
        (None, None, "multiplier"),
        ("", None, "multiplier"),
        ('arithmetic = "dyadic"', None, "dyadic"),
        ('arithmetic = "dyadic"', "multiplier", "multiplier"),
        (None, "dyadic", "dyadic"),
    ],
)
def test_arithmetic_is_the_command_lines_the_files_or_the_chips(
    file: str | None, told: str | None, expected: str, tmp_path: Path
) -> None:
    path = None
    if file is not None:
        path = tmp_path / "precision.toml"
        path.write_text(file, encoding="utf-8")
    chip = load_chip("reference")
    capability = chip.capability.model_copy(update={"arithmetic": ["multiplier", "dyadic"]})
    chip = chip.model_copy(update={"capability": capability})
    options: Any = SimpleNamespace(arithmetic=told, precision=path)
    assert chosen_precision(options, chip).arithmetic == expected


def test_accumulators_are_held_to_the_width_asked_for(weights: Path, tmp_path: Path) -> None:
    result = invoke("--weights", weights, "--out", tmp_path, "--steps", 2, "--accumulator-bits", 16)
    assert result.exit_code == 0, result.output
    graph = load_graph(tmp_path / "graph.json")
    assert max(graph.accumulator_bits(layer) for layer in graph.layers) == 16


def test_calibration_sees_strong_noise_whatever_the_mix() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    weak = TrainingNoise(gaussian_fraction=1.0, sigma_max=2.0, u8_fraction=1.0)
    mix = Mix([(CleanSource({"one": photograph}, weak), 1.0)], batch_size=4, patch=32)
    batches = calibration_batches(mix)
    assert len(batches) == 2 * CALIBRATION_BATCHES
    strengths = [float((noisy - clean).std()) for noisy, clean in batches]
    assert max(strengths[:CALIBRATION_BATCHES]) < 0.02
    assert min(strengths[CALIBRATION_BATCHES:]) > 0.02
    again = calibration_batches(mix)
    for (noisy, _), (same, _) in zip(batches, again, strict=True):
        assert torch.equal(noisy, same)


def test_a_mix_of_pairs_alone_is_calibrated_on_pairs(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    write_pixels(tmp_path / "image.png", image)
    pair = Pair("one", tmp_path / "image.png", tmp_path / "image.png", analog_gain=2.0)
    mix = Mix([(PairSource(PairImages([pair])), 1.0)], batch_size=4, patch=32)
    batches = calibration_batches(mix)
    assert len(batches) == CALIBRATION_BATCHES
    assert all(torch.equal(noisy, clean) for noisy, clean in batches)
