"""Fitting: alternate steps, exact resume, what is left in the folder, and that it learns."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from starlight.images import read_pixels
from starlight.noise.gan.config import FitSettings, GanConfig
from starlight.noise.gan.fit import NoiseFit
from starlight.noise.gan.generate import NoiseGenerator
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import PairSet

CONFIG = GanConfig(width=4, crop=16)
SETTINGS = FitSettings(steps=6, batch=3, window=2, patience=1000, checkpoint_seconds=1e-9)


def make_fit(pairs: PairSet, folder: Path, **settings: object) -> NoiseFit:
    return NoiseFit(PairImages(pairs.pairs), CONFIG, SETTINGS.model_copy(update=settings), folder)


def weights(fit: NoiseFit) -> dict[str, torch.Tensor]:
    """Everything that training moves, copied."""
    named = {"generator": fit.generator, "discriminator": fit.discriminator, "kept": fit.average}
    return {
        f"{owner}.{name}": value.clone()
        for owner, network in named.items()
        for name, value in network.state_dict().items()
    }


def test_resumed_after_any_step_it_ends_with_the_same_weights(
    pair_set: PairSet, tmp_path: Path
) -> None:
    straight = make_fit(pair_set, tmp_path / "straight")
    assert straight.run() == "steps"
    wanted = weights(straight)
    stopped = make_fit(pair_set, tmp_path / "stopped")
    stopped.convergence.update = lambda *_: stopping(stopped)  # type: ignore[method-assign]

    def stopping(fit: NoiseFit) -> bool:
        fit.interrupted = fit.step == 3
        return False

    assert stopped.run() == "interrupted"
    resumed = make_fit(pair_set, tmp_path / "stopped")
    resumed.resume()
    assert resumed.step == 3
    assert resumed.run() == "steps"
    got = weights(resumed)
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        assert torch.equal(value, got[name]), name
    generators = [
        (tmp_path / name / "generator.safetensors").read_bytes() for name in ("straight", "stopped")
    ]
    assert generators[0] == generators[1]


def test_each_network_learns_in_its_own_half_of_a_step(pair_set: PairSet, tmp_path: Path) -> None:
    fit = make_fit(pair_set, tmp_path)
    seen: list[tuple[str, set[str]]] = []
    descend = fit._descend

    def spy(name: str, loss: torch.Tensor) -> None:
        before = weights(fit)
        descend(name, loss)
        moved = {
            key.split(".")[0]
            for key, value in weights(fit).items()
            if not torch.equal(value, before[key]) and "running" not in key
        }
        seen.append((name, moved))

    fit._descend = spy  # type: ignore[method-assign]
    fit._one_step()
    assert seen == [("discriminator", {"discriminator"}), ("generator", {"generator"})]


def test_real_residuals_have_deviation_one(pair_set: PairSet, tmp_path: Path) -> None:
    fit = make_fit(pair_set, tmp_path, batch=8)
    _, real, _ = fit._seen(fit.sampler.batch(0, range(8)))
    assert real.std().item() == pytest.approx(1.0, abs=0.15)


def test_the_penalty_keeps_answers_from_being_sure(pair_set: PairSet, tmp_path: Path) -> None:
    largest = []
    for weight in (0.0, 0.1):
        fit = make_fit(pair_set, tmp_path, discriminator_rate=3e-3, logit_penalty=weight, batch=8)
        fit.optimisers["generator"].param_groups[0]["lr"] = 0.0
        fit._set_rates = lambda: None  # type: ignore[method-assign]
        for _ in range(40):
            fit._one_step()
        largest.append(fit._one_step()[0])
    assert largest[0] > largest[1] + 0.2


def test_the_folder_holds_generator_losses_and_sheets(pair_set: PairSet, tmp_path: Path) -> None:
    fit = make_fit(pair_set, tmp_path, sheet_steps=4)
    fit.monitor = lambda generator: {"gains": float(len(generator.gains))}
    fit.run()
    assert len(NoiseGenerator.load(tmp_path).gains) == len(pair_set.pairs)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 4, 5, 6, 6]
    assert [row["gains"] for row in rows if row["gains"]] == ["9.0", "9.0"]
    assert all(0.0 < float(row["generator"]) < 2.0 for row in rows)
    for name in ("0000004.png", "0000006.png"):
        sheet = read_pixels(tmp_path / "sheets" / name)
        assert sheet.shape == (6 * 132 - 4, 5 * 132 - 4, 3)
        assert np.array_equal(sheet[:64, :64], read_pixels(pair_set.pairs[0].truth))


def test_before_they_are_fixed_statistics_are_gathered_for_the_kept_weights(
    pair_set: PairSet, tmp_path: Path
) -> None:
    """In evaluation it does what it does in training, but for the spread between batches."""
    fit = make_fit(pair_set, tmp_path, batch=8, fix_statistics=1.0)
    fit.run()
    kept = fit.averaged()
    crops = fit.sampler.batch(100, range(8))
    condition, _, _ = fit._seen(crops)
    noise = torch.randn(crops.truth.shape)
    with torch.no_grad():
        evaluated = kept.network(condition[:, :5], noise)
        trained = fit.average.train()(condition[:, :5], noise)
    assert (evaluated - trained).std() < 0.6 * trained.std()


def test_once_fixed_no_image_depends_on_its_batch(pair_set: PairSet, tmp_path: Path) -> None:
    fit = make_fit(pair_set, tmp_path, fix_statistics=0.5)
    for _ in range(3):
        fit._one_step()
    assert not fit.fixed
    fit._one_step()
    assert fit.fixed
    fixed = statistics(fit)
    fit.run()
    for name, value in statistics(fit).items():
        assert torch.equal(value, fixed[name]), name
    crops = fit.sampler.batch(0, range(3))
    condition, _, _ = fit._seen(crops)
    noise = torch.randn(crops.truth.shape)
    with torch.no_grad():
        together = fit.generator(condition[:, :5], noise)
        alone = fit.generator(condition[:1, :5], noise[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


def statistics(fit: NoiseFit) -> dict[str, torch.Tensor]:
    """Batch norm's of the generator that trains and of the one that is kept."""
    return {name: value for name, value in weights(fit).items() if "running" in name}


def test_convergence_ends_the_fit(pair_set: PairSet, tmp_path: Path) -> None:
    fit = make_fit(pair_set, tmp_path, steps=1000, band=0.49, patience=2)
    fit.convergence.left = True
    assert fit.run() == "converged"
    assert fit.step < 1000


def test_minutes_end_the_fit(pair_set: PairSet, tmp_path: Path) -> None:
    assert make_fit(pair_set, tmp_path, steps=10**6, minutes=1e-4).run() == "minutes"


def test_a_foreign_or_damaged_checkpoint_is_refused(pair_set: PairSet, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="file must exist to resume"):
        make_fit(pair_set, tmp_path).resume()
    make_fit(pair_set, tmp_path, steps=1).run()
    with pytest.raises(ValueError, match=r"settings must be .* to resume"):
        make_fit(pair_set, tmp_path, steps=1, batch=4).resume()
    fewer = PairSet(pair_set.folder, pair_set.pairs[:3])
    with pytest.raises(ValueError, match="pairs must be 3 pairs"):
        make_fit(fewer, tmp_path, steps=1).resume()
    other = CONFIG.model_copy(update={"discriminator": "unet"})
    with pytest.raises(ValueError, match="networks must be"):
        NoiseFit(
            PairImages(pair_set.pairs), other, SETTINGS.model_copy(update={"steps": 1}), tmp_path
        ).resume()
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="must be a complete checkpoint"):
        make_fit(pair_set, tmp_path, steps=1).resume()


def test_losses_that_are_not_finite_stop_the_fit(pair_set: PairSet, tmp_path: Path) -> None:
    fit = make_fit(pair_set, tmp_path)
    with torch.no_grad():
        fit.generator.last.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="losses must stay finite"):
        fit.run()


@pytest.mark.parametrize("form", ["encoder", "unet"])
def test_either_network_learns_against_the_other_at_rest(
    pair_set: PairSet, tmp_path: Path, form: str
) -> None:
    config = GanConfig(width=4, crop=16, discriminator=form)
    settings = SETTINGS.model_copy(update={"batch": 8, "discriminator_rate": 3e-3})
    fit = NoiseFit(PairImages(pair_set.pairs), config, settings, tmp_path)

    def rates(generator: float, discriminator: float) -> None:
        fit._set_rates = lambda: None  # type: ignore[method-assign]
        for name, rate in (("generator", generator), ("discriminator", discriminator)):
            fit.optimisers[name].param_groups[0]["lr"] = rate

    def losses(steps: int) -> np.ndarray:
        return np.mean([fit._one_step() for _ in range(steps)][-5:], 0)

    first = losses(5)
    rates(0.0, 3e-3)
    taught = losses(25)
    assert taught[1] < first[1] - 0.05, "the discriminator's loss falls while the generator rests"
    assert taught[0] > first[0] + 0.05
    rates(1e-3, 0.0)
    answered = losses(50)
    assert answered[0] < taught[0] - 0.05, "the generator's falls while the discriminator rests"
    assert answered[1] > taught[1] + 0.05
