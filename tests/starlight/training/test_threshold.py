"""The loop until a threshold: its ends, when it grows, and that a killed run ends the same."""

import math
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from starlight.training.config import parse_config
from starlight.training.threshold import ThresholdTrainer


def batches(step: int) -> tuple[Tensor, Tensor]:
    """The clean image is flat; the noise has no more structure than its strength."""
    generator = torch.Generator().manual_seed(step)
    clean = (2 * torch.rand(2, 3, 1, 1, generator=generator) - 1).expand(2, 3, 16, 16)
    return clean + 0.2 * torch.randn(2, 3, 16, 16, generator=generator), clean


def trainer(
    folder: Path,
    threshold: float | None = 1e-9,
    ladder: tuple[dict[str, Any], ...] = (),
    source: Any = batches,
    growth: dict[str, Any] | None = None,
    **training: Any,
) -> ThresholdTrainer:
    config = parse_config(
        {
            "network": {"width": 2, "levels": 1},
            "backend": "reference",
            "training": {"threshold": threshold, "patch": 16, "warmup": 2, "ema": 0.9, **training},
            "growth": {
                "check_every": 4, "check_batches": 1, "patience": 1, "drops": 1, "gain": 0.9,
                "ladder": ladder, **(growth or {}),
            },
            "log": {"every": 3},
        }
    )  # fmt: skip
    return ThresholdTrainer(config, source, lambda i: batches(10_000 + i), folder)


LADDER = ({"width": 4}, {"levels": 2})


def test_a_threshold_that_is_met_ends_training_there(tmp_path: Path) -> None:
    training = trainer(tmp_path, threshold=1.0, steps=100)
    assert training.run()
    assert (training.end, training.step) == ("threshold reached", 4)


def test_a_check_that_meets_the_threshold_grows_nothing(tmp_path: Path) -> None:
    stalls = {"growth": {"drops": 0}, "ladder": LADDER}
    above = trainer(tmp_path, steps=8, **stalls)
    above.run()
    assert above.grown_at == [8]  # no progress since the check at step 4
    assert above.checked is not None
    met = trainer(tmp_path, threshold=above.checked[0], steps=100, **stalls)
    met.run()
    assert (met.end, met.step, met.rung) == ("threshold reached", 8, 0)


def test_a_ladder_ends_above_the_threshold_and_says_so(tmp_path: Path) -> None:
    training = trainer(tmp_path, ladder=LADDER, growth={"restart": 0.5})
    training.run()
    assert training.end == "ladder exhausted"
    summary = training.summary()
    assert summary["loss"] > summary["threshold"]
    # gain 0.9: the first check of a rung is progress, all others are none. Then the rate drops.
    assert training.grown_at == [12, 24]
    assert training.step == 36
    assert [rung["began_at"] for rung in summary["rungs"]] == [0, 12, 24]
    assert training.network.config == training.rungs[2]
    rates = {row.step: row.learning_rate for row in training.log.rows}
    assert rates[12] == pytest.approx(0.3 * rates[8], rel=0.01)
    assert rates[15] == pytest.approx(0.5 * rates[8], rel=0.01)  # `restart`, after its warm-up


def test_steps_that_are_spent_end_it_with_a_last_check(tmp_path: Path) -> None:
    training = trainer(tmp_path, steps=6)
    training.run()
    assert training.end == "budget spent"
    assert training.checked_at == 6
    assert training.checked == training.check()


def test_without_a_threshold_a_cosine_ends_with_its_steps(tmp_path: Path) -> None:
    training = trainer(tmp_path, threshold=None, steps=6, schedule="cosine")
    training.run()
    assert training.end == "steps done"
    assert training.log.rows[-1].learning_rate < 0.1 * training.log.rows[0].learning_rate


def test_growth_leaves_the_check_loss_and_carries_moments_and_average(tmp_path: Path) -> None:
    training = trainer(tmp_path, ladder=LADDER, precision="float32")
    while not training.grown_at:
        training._one_step()
        if training.step < 12:
            training._after_step()
        else:
            training.stalled = True
            before = training.check()
            head = training.optimiser.state[training.network.head.weight]["exp_avg"].clone()
            training._grow_if_stalled()
    after = training.check()
    assert after == pytest.approx(before, rel=1e-6)
    assert training.average["head.weight"].shape == (4, 3, 3, 3)
    carried = training.optimiser.state[training.network.head.weight]
    assert torch.equal(carried["exp_avg"][:2], head)
    assert carried["step"] == 12
    fresh = {name: value.clone() for name, value in training.network.state_dict().items()}
    for _ in range(4):
        training._one_step()
    tail = training.network.tail.weight
    assert (tail != fresh["tail.weight"]).all()  # new channels are heard by now


def weights(training: ThresholdTrainer) -> list[dict[str, Tensor]]:
    return [training.network.state_dict(), training.average]


def assert_equal(one: ThresholdTrainer, other: ThresholdTrainer) -> None:
    for first, second in zip(weights(one), weights(other), strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("stop", [5, 12, 14, 30])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_anywhere_equals_uninterrupted(tmp_path: Path, stop: int, precision: str) -> None:
    whole = trainer(tmp_path / "whole", ladder=LADDER, precision=precision)
    part = trainer(tmp_path / "part", ladder=LADDER, precision=precision)
    for training in (whole, part):
        training.checkpoint.parent.mkdir()
    whole.run()
    for _ in range(stop):
        part._one_step()
        part._after_step()
    part.save()
    resumed = trainer(tmp_path / "part", ladder=LADDER, precision=precision)
    resumed.resume()
    resumed.run()
    assert resumed.end == whole.end
    assert_equal(resumed, whole)
    columns = [
        [(row.step, row.rung, row.learning_rate, row.loss, row.check_loss) for row in each.log.rows]
        for each in (whole, resumed)
    ]
    assert columns[0] == columns[1]


def test_an_exhausted_run_goes_on_when_the_ladder_gets_longer(tmp_path: Path) -> None:
    trainer(tmp_path, ladder=LADDER[:1]).run()
    longer = trainer(tmp_path, ladder=LADDER)
    longer.resume()
    assert longer.end is None
    longer.run()
    whole = trainer(tmp_path, ladder=LADDER)
    whole.run()
    assert longer.end == "ladder exhausted"
    assert_equal(longer, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "training.learning_rate must be 0.5 to resume, got 0.001"),
        ({"growth": {"patience": 2}}, "growth.patience must be 2 to resume, got 1"),
        ({"ladder": ({"width": 6},)}, "rung 1 must be"),
        ({"ladder": ()}, "rung 1 must be no such rung"),
    ],
)
def test_another_runs_checkpoint_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    trainer(tmp_path, ladder=LADDER).run()
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **{"ladder": LADDER, **change}).resume()


def test_a_full_disk_is_a_clear_error_and_the_checkpoint_before_stands(tmp_path: Path) -> None:
    training = trainer(tmp_path, steps=8)
    training._one_step()
    training.save()
    stands = training.checkpoint.read_bytes()
    training._one_step()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"disk must take \d+ bytes, .*; the one before stands"):
            training.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert training.checkpoint.read_bytes() == stands
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv"]


def test_a_file_that_goes_bad_while_training_loses_nothing(tmp_path: Path) -> None:
    def failing(step: int) -> tuple[Tensor, Tensor]:
        if step == 5:
            raise ValueError("image: x.png must be an intact image file, got damaged data")
        return batches(step)

    with pytest.raises(ValueError, match=r"x\.png must be an intact image"):
        trainer(tmp_path, source=failing, steps=8).run()
    resumed = trainer(tmp_path, steps=8)
    resumed.resume()
    assert resumed.step == 5
    resumed.run()
    whole = trainer(tmp_path, steps=8)
    whole.run()
    assert_equal(resumed, whole)


def test_psnr_of_the_check_is_that_of_pixels(tmp_path: Path) -> None:
    training = trainer(tmp_path, loss="l2", precision="float32")
    loss, psnr = training.check()
    mse_in_pixels = loss * 128**2
    assert psnr == pytest.approx(10 * math.log10(255**2 / mse_in_pixels), abs=1e-6)
