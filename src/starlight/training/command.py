"""`starlight train`: photographs and a preset in, weights out."""

import json
from pathlib import Path
from typing import Any

import click
import torch

from starlight.files import write_json
from starlight.models.checkpoint import save_weights
from starlight.models.config import DenoiserConfig, preset
from starlight.models.denoiser import DenoisingNetwork, default_backend
from starlight.noise.training import TrainingNoise
from starlight.ops import BACKENDS, Backend
from starlight.training.data import PatchSampler, load_photographs
from starlight.training.loop import Trainer, TrainingSettings

CHOICES = ("widening", "growth", "skip", "residual", "upsampling")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--preset", "preset_name", default="edge", show_default=True)
@click.option(
    "--choice",
    "choices",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"A Choice other than the preset's, e.g. skip=module ({', '.join(CHOICES)}, subtraction).",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of clean photographs (repeatable). Default: the photographs of scikit-image.",
)
@click.option("--steps", default=10_000, show_default=True)
@click.option("--minutes", type=float, help="Cap on training time.")
@click.option("--batch", default=8, show_default=True)
@click.option("--patch", default=96, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--gaussian-fraction", default=0.5, show_default=True, help="The rest: camera noise.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=int, help="Threads of PyTorch. Default: all cores.")
@click.option(
    "--backend", type=click.Choice(BACKENDS), help="Kernels. Default: fused where they are built."
)
@click.option("--resume", is_flag=True, help="Go on from OUT/checkpoint.pt.")
def train(
    out: Path,
    preset_name: str,
    choices: tuple[str, ...],
    data: tuple[Path, ...],
    steps: int,
    minutes: float | None,
    batch: int,
    patch: int,
    learning_rate: float,
    gaussian_fraction: float,
    seed: int,
    threads: int | None,
    backend: Backend | None,
    resume: bool,
) -> None:
    """Train a denoiser into the folder OUT (checkpoint.pt, weights.safetensors, training.json)."""
    if threads is not None:
        torch.set_num_threads(threads)
    config = configured(preset_name, choices)
    settings = TrainingSettings(steps=steps, minutes=minutes, learning_rate=learning_rate)
    sampler = PatchSampler(
        load_photographs(data),
        TrainingNoise(gaussian_fraction=gaussian_fraction),
        batch_size=batch,
        patch=patch,
        seed=seed,
    )
    torch.manual_seed(seed)
    network = DenoisingNetwork(config, backend or default_backend(config))
    identity = (
        f"{config.to_json()}, data {[str(folder) for folder in data]}, batch {batch}, "
        f"patch {patch}, gaussian fraction {gaussian_fraction}, seed {seed}, "
        f"backend {network.backend}"
    )
    trainer = Trainer(network, sampler.batch, settings, out, identity=identity)
    if resume:
        trainer.resume()
    out.mkdir(parents=True, exist_ok=True)
    finished = trainer.run()
    trainer.load_average()
    save_weights(network, out / "weights.safetensors")
    summary = {
        "preset": preset_name,
        "config": config.model_dump(),
        "settings": settings.model_dump(),
        "photographs": len(sampler.photographs),
        "seed": seed,
        "backend": network.backend,
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 1),
        "finished": finished,
    }
    write_json(out / "training.json", summary)
    click.echo(f"weights: {out / 'weights.safetensors'} after {trainer.step} steps")
    if not finished:
        click.echo("stopped before the end; --resume goes on from here", err=True)
        raise SystemExit(130)


def configured(preset_name: str, choices: tuple[str, ...]) -> DenoiserConfig:
    """The preset with some Choices replaced.

    Raises ValueError for an unknown preset, Choice or value.
    """
    fields: dict[str, Any] = preset(preset_name).model_dump()
    for choice in choices:
        name, _, value = choice.partition("=")
        if name not in (*CHOICES, "subtraction"):
            known = ", ".join((*CHOICES, "subtraction"))
            raise ValueError(f"train: choice must be one of {known}, got {choice!r}")
        fields[name] = value.lower() == "true" if name == "subtraction" else value
    return DenoiserConfig.from_json(json.dumps(fields))
