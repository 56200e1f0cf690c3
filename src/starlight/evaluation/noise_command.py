"""`starlight noise judge`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from starlight.errors import OneLineErrors
from starlight.evaluation.noise import AKLD_SAMPLES, Image, pgap
from starlight.evaluation.noise_figure import draw
from starlight.evaluation.noise_judge import NoiseModel, RealPair, definitions, judge, table
from starlight.files import check_folder, write_atomically, write_json
from starlight.images import Pixels, read_pixels
from starlight.noise.baseline import VarianceModel
from starlight.noise.pairs import Pair, PairSet, read_pairs

if TYPE_CHECKING:
    from starlight.noise.gan.generate import NoiseGenerator

_path = click.Path(path_type=Path)


@click.command("judge", cls=OneLineErrors)
@click.argument("source", type=_path, metavar="PAIRS")
@click.option("--model", type=_path, help="Run folder of `fit`, or its generator.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=AKLD_SAMPLES, show_default=True,
    help="Noise images per pair, for AKLD.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Only so many pairs, evenly chosen.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--pgap",
    "denoisers",
    nargs=2,
    type=_path,
    metavar="REAL GENERATED",
    help="Weights of two denoisers, trained on real and on generated noise: their PSNR gap.",
)
@click.option("--figure", type=_path, help="Write a PNG of the figures.")
@click.option("--json", "report", type=_path, help="Write the figures.")
def judge_command(
    source: Path,
    model: Path | None,
    samples: int,
    limit: int | None,
    seed: int,
    denoisers: tuple[Path, Path] | None,
    figure: Path | None,
    report: Path | None,
) -> None:
    """Judge noise models on the real pairs of PAIRS, which must be held out.

    Models: the generator, the Poisson-Gaussian model and the noise level function (variance at 17
    intensities) that were calibrated on its training pairs. Without --model the last two are
    calibrated on the first half of PAIRS' scenes and judged on the rest.
    """
    for path in (figure, report):
        if path is not None:
            check_folder(path)
    pairs = read_pairs(source)
    if model is None:
        pairs, models = _own_calibration(pairs)
    else:
        from starlight.noise.gan.generate import NoiseGenerator

        models = _models(NoiseGenerator.load(model))
    real = _real_pairs(pairs.pairs, limit)
    found = judge(real, models, samples, seed, progress=True)
    click.echo(table(found))
    gap = None
    if denoisers is not None:
        gap = _pgap(denoisers, real)
        click.echo(f"PGap {gap:.3f} dB")
    if figure is not None:
        write_atomically(figure, draw(found))
    if report is not None:
        write_json(
            report,
            {
                "pairs": len(real),
                "seed": seed,
                "definitions": {**definitions(), "akld_samples": samples},
                "noise": {name: value.to_json() for name, value in found.items()},
                "pgap_db": gap,
            },
        )


def _models(generator: NoiseGenerator) -> dict[str, NoiseModel]:
    return {
        "generator": generator.image,
        "Poisson-Gaussian": _sampler(generator.baseline, generator.units.white),
        "noise level function": _sampler(generator.units.model, generator.units.white),
    }


def _sampler(model: VarianceModel, white: int) -> NoiseModel:
    def sample(truth: Image, analog_gain: float, digital_gain: float, seed: int) -> Image:
        noisy = model.sample(truth, analog_gain, digital_gain, np.random.default_rng(seed))
        return np.clip(np.floor(noisy * white + 0.5), 0, white) / white

    return sample


def _own_calibration(pairs: PairSet) -> tuple[PairSet, dict[str, NoiseModel]]:
    """(pairs of the second half of the scenes, models of the first half)."""
    scenes = list(pairs.scenes.values())
    if len(scenes) < 2:
        raise ValueError(
            f"noise judge: scenes must be at least two without --model, got {len(scenes)}"
        )
    first, second = (
        tuple(pair for scene in half for pair in scene)
        for half in (scenes[: len(scenes) // 2], scenes[len(scenes) // 2 :])
    )

    def calibrated(knots: int) -> NoiseModel:
        images = (
            (gains, *(image / white for image in pixels))
            for gains, pixels, white in map(_read, first)
        )
        return _sampler(VarianceModel.fit(images, knots), _read(first[0])[2])  # type: ignore[arg-type]

    models = {"Poisson-Gaussian": calibrated(2), "noise level function": calibrated(17)}
    return PairSet(pairs.folder, second), models


def _read(pair: Pair) -> tuple[tuple[float, float], tuple[Pixels, Pixels], int]:
    """((analog gain, digital gain), (truth, noisy) [H, W, C], white)."""
    truth, noisy = (np.atleast_3d(read_pixels(path)) for path in (pair.truth, pair.noise))
    if truth.dtype != noisy.dtype or truth.shape != noisy.shape:
        raise ValueError(
            f"noise judge: {pair.noise} must have the truth's size and depth "
            f"{list(truth.shape)} {truth.dtype}, got {list(noisy.shape)} {noisy.dtype}"
        )
    gains = (pair.analog_gain, pair.correcting_gain)
    return gains, (truth, noisy), int(np.iinfo(truth.dtype).max)


def _real_pairs(pairs: tuple[Pair, ...], limit: int | None) -> list[RealPair]:
    """The pairs as arrays; where all have one, two of a truth and gains join: a second frame."""
    groups: list[list[Pair]] = []
    for pair in pairs:
        for group in groups:
            if group[0].truth == pair.truth and _same_gains(group[0], pair):
                group.append(pair)
                break
        else:
            groups.append([pair])
    chosen = [[pair] for pair in pairs]
    if all(len(group) > 1 for group in groups):
        chosen = [group[:2] for group in groups]
    if limit is not None and limit < len(chosen):
        chosen = [chosen[i * len(chosen) // limit] for i in range(limit)]
    result = []
    for members in chosen:
        gains, images, white = _read(members[0])
        truth, noisy = (image.astype(np.float32) / white for image in images)
        again = None
        if len(members) > 1:
            again = _read(members[1])[1][1].astype(np.float32) / white
        result.append(RealPair(truth, noisy, *gains, again))
    return result


def _same_gains(first: Pair, second: Pair) -> bool:
    """Whether gains agree to 2 %: corrected exposure is fitted, so hardly two are equal."""
    return all(
        abs(math.log(getattr(first, name) / getattr(second, name))) < 0.02
        for name in ("analog_gain", "correcting_gain")
    )


def _pgap(denoisers: tuple[Path, Path], real: list[RealPair]) -> float:
    from starlight.denoise.denoiser import Denoiser

    on_real, on_generated = (Denoiser(str(path)).denoise for path in denoisers)
    return pgap(
        lambda noisy: on_real(noisy.astype(np.float32)),
        lambda noisy: on_generated(noisy.astype(np.float32)),
        ((pair.truth, pair.noisy) for pair in real),
    )
