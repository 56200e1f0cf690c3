"""Several processes train as one: the same weights, exit codes kept, one voice."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from starlight.distributed import World, join, launch

# Trains one network in float64 for some steps, growing once, and leaves what the writer has.
PROGRAM = """
import json, sys, warnings
from pathlib import Path
import torch
from starlight.distributed import join
from starlight.training.config import parse_config
from starlight.training.threshold import ThresholdTrainer
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
def config(steps):
    return parse_config({
        "backend": "reference", "network": {"width": 2, "levels": 1},
        "training": {"threshold": 1e-9, "steps": steps, "patch": 16, "batch": 4,
                     "precision": "float32"},
        "growth": {"check_every": 2, "patience": 1, "drops": 0, "gain": 0.9, "check_batches": 1,
                   "ladder": [{"width": 4}]},
    })
torch.set_default_dtype(torch.float64)
with join("cpu") as world:
    def part(step):
        generator = torch.Generator().manual_seed(step)
        batch = torch.rand(2, 4, 3, 16, 16, generator=generator)
        return tuple(batch[:, list(world.part(4))])
    ThresholdTrainer(config(5), part, part, folder, world=world).run()
    seen = folder if world.is_writer else folder / "nowhere"  # the writer alone has the checkpoint
    trainer = ThresholdTrainer(config(8), part, part, seen, world=world)
    trainer.resume()
    trainer.run()
    if world.is_writer:
        state = {name: value.tolist() for name, value in trainer.average.items()}
        losses = [row.loss for row in trainer.log.rows]
        (folder / "state.json").write_text(json.dumps([state, losses, trainer.grown_at]))
"""


def test_two_processes_on_loopback_train_what_one_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(script), str(folders[1])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training:   0%") == 1  # one process speaks
    monkeypatch.setattr(sys, "argv", ["train.py", str(folders[0])])
    try:
        runpy.run_path(str(script))
    finally:
        torch.set_default_dtype(torch.float32)
    results = [json.loads((folder / "state.json").read_text()) for folder in folders]
    (one, losses, grown), (two, losses_of_two, grown_of_two) = results
    assert grown == grown_of_two == [4]
    # The order of sums differs; float64 leaves nine digits after eight steps.
    assert losses == pytest.approx(losses_of_two, rel=1e-9)
    for name, values in one.items():
        torch.testing.assert_close(
            torch.tensor(values), torch.tensor(two[name]), rtol=1e-7, atol=1e-9, msg=name
        )


WORKER = """
import os, sys, time
rank, case = int(os.environ["RANK"]), sys.argv[1]
print("standard output of", rank, flush=True)
print("error of", rank, file=sys.stderr, flush=True)
if case == "second fails":
    if rank == 1:
        sys.exit(5)
    time.sleep(60)
sys.exit({"agreed": 3, "writer fails": 4 * (rank == 0)}[case])
"""


@pytest.mark.parametrize(
    ("case", "code", "errors"),
    [
        ("agreed", 3, {"error of 0"}),
        ("writer fails", 4, {"error of 0"}),
        ("second fails", 5, {"error of 0", "error of 1"}),
    ],
)
def test_launcher_keeps_the_exit_code_and_one_voice(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    code: int,
    errors: set[str],
) -> None:
    monkeypatch.setattr("starlight.distributed.GRACE_SECONDS", 0.2)
    assert launch([sys.executable, "-c", WORKER, case], 2) == code
    out, err = capfd.readouterr()
    assert out.splitlines() == ["standard output of 0"]
    assert set(err.splitlines()) == errors


def test_parts_cover_a_batch_in_order() -> None:
    parts = [World(rank, 3).part(6) for rank in range(3)]
    assert [index for part in parts for index in part] == list(range(6))
    with pytest.raises(ValueError, match="batch must be a multiple of 3 processes, got 7"):
        World(0, 3).part(7)


def test_a_process_alone_is_its_own_world() -> None:
    with join("cpu") as world:
        module = torch.nn.Linear(1, 1)
        assert world.wrap(module) is module
        assert world.is_writer
        assert world.mean(1.5, -2.0) == [1.5, -2.0]


@pytest.mark.parametrize("device", ["tpu", "meta", "cuda:99"])
def test_unusable_devices_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device must be"), join(device):
        raise AssertionError
