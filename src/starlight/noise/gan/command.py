"""`starlight noise fit` and `starlight noise generate`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from pydantic import ValidationError

from starlight.distributed import join, processes_option
from starlight.errors import OneLineErrors
from starlight.files import check_folder, write_json
from starlight.images import CAMERA_SUFFIXES, Pixels, read_pixels
from starlight.noise.gan.config import FitSettings, GanConfig
from starlight.noise.gan.data import scene_split
from starlight.noise.gan.fit import Monitor, NoiseFit
from starlight.noise.gan.generate import NoiseGenerator, generate_set
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import Pair, read_pairs

EXIT_CODES = {"converged": 0, "steps": 4, "minutes": 4, "interrupted": 130}
MONITOR_PAIRS, MONITOR_SAMPLES = 16, 4

_path = click.Path(path_type=Path)


def _default(model: type[GanConfig | FitSettings], name: str) -> Any:
    return model.model_fields[name].default


@click.command(cls=OneLineErrors)
@click.argument("source", type=_path, metavar="DIR")
@click.option("--out", type=_path, required=True, help="Run folder.")
@click.option("--width", default=_default(GanConfig, "width"), show_default=True)
@click.option("--crop", default=_default(GanConfig, "crop"), show_default=True)
@click.option(
    "--discriminator",
    type=click.Choice(["encoder", "unet"]),
    default=_default(GanConfig, "discriminator"),
    show_default=True,
)
@click.option("--steps", default=_default(FitSettings, "steps"), show_default=True)
@click.option("--minutes", type=float, help="Cap on training time.")
@click.option("--batch", default=_default(FitSettings, "batch"), show_default=True)
@click.option("--learning-rate", default=_default(FitSettings, "learning_rate"), show_default=True)
@click.option(
    "--discriminator-rate", default=_default(FitSettings, "discriminator_rate"), show_default=True
)
@click.option("--logit-penalty", default=_default(FitSettings, "logit_penalty"), show_default=True)
@click.option(
    "--fix-statistics", default=_default(FitSettings, "fix_statistics"), show_default=True
)
@click.option("--ema", default=_default(FitSettings, "ema"), show_default=True)
@click.option("--window", default=_default(FitSettings, "window"), show_default=True)
@click.option("--band", default=_default(FitSettings, "band"), show_default=True)
@click.option("--patience", default=_default(FitSettings, "patience"), show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default=_default(FitSettings, "precision"),
    show_default=True,
)
@click.option("--seed", default=0, show_default=True)
@click.option("--sheet-steps", default=_default(FitSettings, "sheet_steps"), show_default=True)
@click.option(
    "--held-out", default=0, show_default=True, help="Last scenes to watch and not to train on."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all cores.")
@click.option("--device", help="cpu or cuda. Default: cuda where there is one.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@click.option("--json", "report", type=_path, help="Write the figures there too.")
@processes_option("starlight")
def fit(
    source: Path,
    out: Path,
    held_out: int,
    threads: int | None,
    device: str | None,
    resume: bool,
    report: Path | None,
    **options: Any,
) -> None:
    """Fit a noise generator to the pair set DIR.

    The run folder gets generator.safetensors, checkpoint.pt, losses.csv and sample sheets. Width 64
    and crop 256 are the full networks; width 8 and crop 64 train on one core. Exit code 0: the
    losses converged; 4: steps or minutes are spent before they did; 130: stopped by Ctrl-C,
    --resume goes on; 2: an error.
    """
    if report is not None:
        check_folder(report)
    config = _checked(GanConfig, options)
    settings = _checked(FitSettings, options)
    if (out / "checkpoint.pt").exists() and not resume:
        raise ValueError(
            f"noise fit: out must hold no checkpoint, got {out / 'checkpoint.pt'}; add --resume to "
            "go on from it, or choose another folder"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    training, watched = scene_split(read_pairs(source), held_out)
    with join(device) as world:
        fitted = NoiseFit(
            PairImages(training),
            config,
            settings,
            out,
            world=world,
            monitor=_monitor(watched) if watched else None,
        )
        if resume and (out / "checkpoint.pt").is_file():
            fitted.resume()
        ending = fitted.run()
        generator_loss, discriminator_loss = fitted.convergence.averages
        summary = {
            "ending": ending,
            "verdict": fitted.convergence.verdict,
            "exit_code": EXIT_CODES[ending],
            "steps": fitted.step,
            "seconds": round(fitted.seconds, 1),
            "generator_loss": generator_loss,
            "discriminator_loss": discriminator_loss,
            "training_pairs": len(training),
            "watched": fitted.log[-1] if watched and fitted.log else None,
            "config": config.model_dump(),
            "settings": settings.model_dump(),
        }
        if world.is_writer:
            write_json(out / "fit.json", summary)
            if report is not None:
                write_json(report, summary)
            click.echo(f"{ending} after {fitted.step} steps; {summary['verdict']}")
            if ending == "interrupted":
                click.echo("--resume goes on from here", err=True)
            else:
                click.echo(f"generator: {out / 'generator.safetensors'}")
        raise SystemExit(EXIT_CODES[ending])


@click.command(cls=OneLineErrors)
@click.argument("source", type=_path, metavar="DIR")
@click.argument("target", type=_path, metavar="OUT")
@click.option("--model", type=_path, required=True, help="Run folder of `fit`, or its generator.")
@click.option("--per-image", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images, by name.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all cores.")
def generate(
    source: Path,
    target: Path,
    model: Path,
    per_image: int,
    limit: int | None,
    seed: int,
    threads: int | None,
) -> None:
    """Make a pair set OUT of the clean images in DIR and generated noise.

    Every noise image gets gains drawn from those that the generator was fitted on.
    """
    from starlight.denoise.images import list_images

    if threads is not None:
        torch.set_num_threads(threads)
    generator = NoiseGenerator.load(model)
    paths = list_images(source)[:limit]
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"noise generate: OUT must be a new or empty folder, got {target}")

    images = ((path.stem, _read_clean(path, generator.units.white)) for path in paths)
    pairs = generate_set(generator, images, target, per_image, seed, progress=len(paths))
    click.echo(f"{len(pairs)} noise images of {len(paths)} clean ones: {target}")


def _read_clean(path: Path, white: int) -> Pixels:
    """A clean image at the depth of the generator; 8 bits become 16 by v -> 257 v, exactly."""
    from starlight.denoise.images import read_image

    if white == 255 or path.suffix.lower() not in CAMERA_SUFFIXES:
        pixels: Pixels = read_image(path)
    else:
        pixels = read_pixels(path)
    if white == 65535 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    return pixels


def _checked(model: type[Any], options: dict[str, Any]) -> Any:
    """A config of the options that it knows; its first complaint as one line."""
    try:
        return model(**{name: options[name] for name in model.model_fields if name in options})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        raise ValueError(f"noise fit: {name}: {first['msg']}, got {first['input']!r}") from None


def _monitor(pairs: tuple[Pair, ...]) -> Monitor:
    """AKLD and histogram KL on some of the pairs that are not trained on."""
    from starlight.evaluation.noise_judge import RealPair, judge

    chosen = list(islice(pairs, 0, None, max(1, len(pairs) // MONITOR_PAIRS)))[:MONITOR_PAIRS]
    real = [RealPair(t, n, *gains) for gains, t, n in PairImages(chosen)]

    def figures(generator: NoiseGenerator) -> dict[str, float]:
        found = judge(real, {"generator": generator.image}, MONITOR_SAMPLES)["generator"]
        assert found.akld is not None
        assert found.kl is not None
        return {"akld": found.akld, "kl": found.kl, "variance_error": found.variance_error}

    return figures
