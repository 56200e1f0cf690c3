"""`starlight train`: files it leaves, exit codes, killed and resumed, unusable input."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from starlight.cli import main
from starlight.images import write_pixels
from starlight.models.checkpoint import load_network
from starlight.noise.pairs import Pair, write_pairs

CONFIG = """
seed = 3
threads = 1
out = "{out}"

[network]
width = 2
levels = 1

[training]
threshold = {threshold}
steps = {steps}
batch = 2
patch = 16
warmup = 2
checkpoint_seconds = 0.1

[growth]
check_every = {check_every}
check_batches = 1
patience = 1
gain = 0.9

[[growth.ladder]]
width = 4
levels = 2

[[data]]
pairs = "{pairs}"
only = "captured"
"""


@pytest.fixture
def pair_set(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pairs = []
    for source in ("captured", "generated"):
        files = [folder / f"{source}_{kind}.png" for kind in ("truth", "noise")]
        for file in files:
            write_pixels(file, rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
        pairs.append(Pair("a", *files, analog_gain=4.0, source=source))  # type: ignore[arg-type]
    write_pairs(folder, pairs)
    return folder


def write_config(folder: Path, pair_set: Path, **changes: object) -> Path:
    """CONFIG in a file; its run folder is folder/run."""
    path = folder / "train.toml"
    values = {"threshold": 1e-6, "steps": 30, "check_every": 5} | changes
    path.write_text(CONFIG.format(out=folder / "run", pairs=pair_set, **values))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def columns(run: Path) -> list[list[str]]:
    """log.csv without the seconds."""
    rows = list(csv.reader((run / "log.csv").read_text().splitlines()))
    return [row[:1] + row[2:] for row in rows]


@pytest.mark.parametrize(
    ("changes", "code", "end"),
    [
        ({"threshold": 10}, 0, "threshold reached after 5 steps on rung 0: loss"),
        ({"steps": 400}, 3, "ladder exhausted after 30 steps on rung 1: loss"),
        ({"steps": 7}, 4, "budget spent after 7 steps on rung 0: loss"),
    ],
)
def test_every_end_has_its_exit_code_and_leaves_everything(
    tmp_path: Path, pair_set: Path, changes: dict[str, object], code: int, end: str
) -> None:
    result = invoke(write_config(tmp_path, pair_set, **changes), "--json", tmp_path / "f.json")
    assert result.exit_code == code, result.output
    assert end in result.stdout
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        "checkpoint.pt", "log.csv", "loss.png", "training.json", "weights.safetensors",
    }  # fmt: skip
    summary = json.loads((run / "training.json").read_text())
    assert json.loads((tmp_path / "f.json").read_text()) == summary
    assert summary["exit_code"] == code
    assert (summary["loss"] <= summary["threshold"]) == (code == 0)
    config = summary["rungs"][summary["rung"]]["config"]
    assert load_network(run / "weights.safetensors").config.model_dump() == config


def test_killed_at_any_moment_it_resumes_and_ends_with_the_same_weights(
    tmp_path: Path, pair_set: Path
) -> None:
    changes = {"steps": 400, "check_every": 60}
    config = write_config(tmp_path, pair_set, **changes)
    assert invoke(config, "--out", tmp_path / "whole").exit_code == 3
    process = subprocess.Popen(
        [sys.executable, "-m", "starlight", "train", str(config), "--resume"],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = tmp_path / "run" / "log.csv"
    while not log.is_file() or len(log.read_text().splitlines()) < 3:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    assert invoke(config, "--resume").exit_code == 3
    weights = [tmp_path / run / "weights.safetensors" for run in ("run", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert columns(tmp_path / "run") == columns(tmp_path / "whole")


def test_interrupt_is_an_end_of_its_own_and_resume_goes_on(tmp_path: Path, pair_set: Path) -> None:
    config = write_config(tmp_path, pair_set, steps=10**6, check_every=10**6)
    process = subprocess.Popen(
        [sys.executable, "-m", "starlight", "train", str(config)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    seen = b""
    while b"loss" not in seen:  # the bar shows the first step: training is under way
        piece = process.stderr.read1(4096)  # type: ignore[attr-defined]
        assert piece, seen
        seen += piece
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130, seen + rest
    assert b"Traceback" not in seen + rest
    assert b"interrupted after" in out
    assert load_network(tmp_path / "run" / "weights.safetensors").config.width == 2
    again = invoke(config)
    assert again.exit_code == 2
    assert "out must hold no checkpoint" in again.output
    write_config(tmp_path, pair_set, steps=1, check_every=10**6)  # already spent
    assert invoke(config, "--resume").exit_code == 4


def test_two_processes_keep_the_exit_code_and_one_voice(tmp_path: Path, pair_set: Path) -> None:
    config = write_config(tmp_path, pair_set, steps=7)
    done = subprocess.run(
        [sys.executable, "-m", "starlight", "train", str(config), "--processes", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert done.stdout.count("budget spent after 7 steps") == 1
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (summary["processes"], summary["steps"]) == (2, 7)


def test_tensorboard_events_hold_the_rows(tmp_path: Path, pair_set: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = write_config(tmp_path, pair_set, steps=9)
    config.write_text(config.read_text() + "\n[log]\nevery = 3\ntensorboard = true\n")
    assert invoke(config).exit_code == 4
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 5, 6, 9]
    assert [event.step for event in events.Scalars("check_loss")] == [5, 9]


def test_unusable_input_is_one_line_and_leaves_nothing(tmp_path: Path, pair_set: Path) -> None:
    def refused(message: str, *arguments: object) -> None:
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1
        assert not (tmp_path / "run").exists()

    refused("file must exist, got", tmp_path / "none.toml")
    refused("Missing argument 'CONFIG.toml'")
    config = write_config(tmp_path, pair_set)
    refused("folder must exist", config, "--json", tmp_path / "none" / "f.json")
    refused("No such option", config, "--steps", 3)
    refused("folder must hold pairs.csv", write_config(tmp_path, tmp_path))
    text = config.read_text()
    config.write_text(text.replace(f'pairs = "{tmp_path}"', f'clean = "{tmp_path}/none"'))
    refused("only must stand beside pairs", config)
    config.write_text(config.read_text().replace('only = "captured"', ""))
    refused("folder must exist", config)
    config = write_config(tmp_path, pair_set)
    config.write_text(text.replace(str(tmp_path / "run"), "").replace("out = ", "# "))
    refused("out must be given", config)
    (pair_set / "captured_noise.png").write_bytes(b"no image")
    refused("captured_noise.png must be an intact image file", write_config(tmp_path, pair_set))
    (pair_set / "captured_noise.png").unlink()
    refused("row 2: noise must be an existing file", write_config(tmp_path, pair_set))


def test_a_run_may_start_from_trained_weights(tmp_path: Path, pair_set: Path) -> None:
    assert invoke(write_config(tmp_path, pair_set, steps=3), "--out", tmp_path / "a").exit_code == 4
    weights = tmp_path / "a" / "weights.safetensors"

    def started_from(source: Path) -> Path:
        config = write_config(tmp_path, pair_set, steps=1)
        config.write_text(f'weights = "{source}"\n{config.read_text()}')
        return config

    assert invoke(started_from(weights), "--out", tmp_path / "b").exit_code == 4
    assert invoke(write_config(tmp_path, pair_set, steps=1), "--out", tmp_path / "c").exit_code == 4
    a, b, c = (load_network(tmp_path / name / "weights.safetensors").state_dict() for name in "abc")
    moved = {
        start: max(float((b[n] - of[n]).abs().max()) for n in b)
        for start, of in {"trained": a, "drawn": c}.items()
    }
    # The first step of the warm-up moves a weight by a third of 1e-3 and its average by less.
    assert moved["trained"] < 1e-3 < moved["drawn"]

    other = invoke(write_config(tmp_path, pair_set), "--out", tmp_path / "b", "--resume")
    assert other.exit_code != 0
    assert "weights must be None to resume" in other.output
    missing = invoke(started_from(tmp_path / "none"), "--out", tmp_path / "d")
    assert "source must be a file or one of the shipped weights" in missing.output
