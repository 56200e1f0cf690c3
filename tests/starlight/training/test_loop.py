"""The loop: learns, resumes exactly, stops cleanly, refuses what does not belong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.training.data import PatchSampler
from starlight.training.loop import Trainer, TrainingSettings

CONFIG = DenoiserConfig(width=4, levels=1)


def trainer(folder: Path, steps: int, identity: str = "", **settings: object) -> Trainer:
    torch.manual_seed(0)
    ramp = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    sampler = PatchSampler({"ramp": ramp}, batch_size=2, patch=16)
    chosen = TrainingSettings(steps=steps, warmup=2, **settings)  # type: ignore[arg-type]
    return Trainer(DenoisingNetwork(CONFIG), sampler.batch, chosen, folder, identity=identity)


def test_learns_a_ramp(tmp_path: Path) -> None:
    training = trainer(tmp_path, 80, learning_rate=1e-2, precision="float32")
    assert training.run()
    assert training.history[-1][1] < 0.8 * training.history[0][1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_equals_uninterrupted(tmp_path: Path, precision: str) -> None:
    whole = trainer(tmp_path, 8, precision=precision)
    whole.run()
    part = trainer(tmp_path, 8, precision=precision)
    for _ in range(3):
        part._one_step()
    part.save()
    resumed = trainer(tmp_path, 8, precision=precision)
    with torch.no_grad():
        resumed.network.tail.weight.add_(1)  # whatever it held is replaced
    resumed.resume()
    assert resumed.step == 3
    resumed.run()
    for kind in ("network", "average"):
        first = whole.average if kind == "average" else whole.network.state_dict()
        second = resumed.average if kind == "average" else resumed.network.state_dict()
        for name, value in first.items():
            assert torch.equal(value, second[name]), (kind, name)


def test_average_follows_and_is_loaded(tmp_path: Path) -> None:
    training = trainer(tmp_path, 5)
    training.run()
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    training.load_average()
    after = training.network.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(after[name], training.average[name]) for name in after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 9}, "steps must be 9"),
        ({"learning_rate": 0.5}, "learning_rate must be 0.5"),
        ({"identity": "another"}, "identity must be 'another'"),
    ],
)
def test_another_runs_checkpoint_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    trainer(tmp_path, 2).save()
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **{"steps": 2, **change}).resume()  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_damaged_and_missing_checkpoints_are_refused(tmp_path: Path, keep: int) -> None:
    training = trainer(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match="must exist to resume"):
        training.resume()
    training.save()
    training.checkpoint.write_bytes(training.checkpoint.read_bytes()[:keep])
    with pytest.raises(ValueError, match="complete checkpoint"):
        training.resume()


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path: Path) -> None:
    training = trainer(tmp_path, 4)
    with torch.no_grad():
        training.network.tail.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="at step 0"):
        training.run()


def test_minutes_cap_the_run(tmp_path: Path) -> None:
    training = trainer(tmp_path, 1_000_000, minutes=1e-3)
    assert training.run()
    assert 0 < training.step < 1_000_000
