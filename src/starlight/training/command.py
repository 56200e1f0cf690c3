"""`starlight train`: a config in; weights, log and the reason of the end out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from starlight.config_file import expanded_path
from starlight.distributed import World, join, processes_option
from starlight.files import check_folder, write_atomically, write_json
from starlight.models.checkpoint import save_weights
from starlight.models.denoiser import DenoisingNetwork
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import read_pairs
from starlight.training.config import OWN_PHOTOGRAPHS, Data, TrainingConfig, load_config
from starlight.training.data import load_photographs
from starlight.training.logs import plot_loss
from starlight.training.loop import CHECKPOINT
from starlight.training.mix import CleanSource, Mix, PairSource, Source
from starlight.training.threshold import EXIT_CODES, ThresholdTrainer


@click.command()
@click.argument("config_file", type=click.Path(path_type=Path), metavar="CONFIG.toml")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, in place of the file's.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint, if any.")
@click.option(
    "--json", "report", type=click.Path(path_type=Path), help="Write the figures there too."
)
@processes_option("starlight")
def train(config_file: Path, out: Path | None, resume: bool, report: Path | None) -> None:
    """Train a denoiser until its loss is at most a threshold; it grows when the loss stalls.

    Exit code 0: the threshold is reached (or, where none is set, the steps are done); 3: the
    largest network has stalled above it; 4: steps or minutes are spent above it; 130: stopped by
    Ctrl-C, --resume goes on; 2: an error.
    """
    config = load_config(config_file)
    folder = out or (Path(config.out) if config.out else None)
    if folder is None:
        raise ValueError(f"training config {config_file}: out must be given there or as --out")
    if report is not None:
        check_folder(report)
    with join(config.device) as world:
        summary = run_training(config, folder, resume=resume, world=world)
        if world.is_writer and report is not None:
            write_json(report, summary)
        raise SystemExit(summary["exit_code"])


def run_training(
    config: TrainingConfig, folder: Path, *, resume: bool = False, world: World | None = None
) -> dict[str, Any]:
    """Train into a folder; returns what training.json holds.

    resume: go on from the folder's checkpoint, from the beginning where there is none.
    Raises ValueError or FileNotFoundError before any work when something is unusable, a checkpoint
    in the folder without `resume` included.
    """
    world = world or World()
    checkpoint = folder / CHECKPOINT
    exists = world.from_writer(checkpoint.exists)
    if exists and not resume:
        raise ValueError(
            f"train: out must hold no checkpoint, got {checkpoint}; add --resume to go on from it, "
            "or choose another folder"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    memory = int(config.memory_gb * (1 << 30))
    mix = make_mix(config, config.data, memory, world)
    held_out = make_mix(config, config.check, memory, world) if config.check else mix
    facts = {"images": [source.count for source, _ in (*mix.sources, *held_out.sources)]}
    trainer = ThresholdTrainer(
        config, mix.part, held_out.check_part, folder, facts=facts, world=world
    )
    if exists:
        trainer.resume()
    if world.is_writer:
        folder.mkdir(parents=True, exist_ok=True)
    world.wait()
    try:
        trainer.run()
    finally:
        trainer.log.close()
    return _finish(trainer, config, folder)


def _finish(trainer: ThresholdTrainer, config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """Weights, training.json, loss.png; says how it ended."""
    assert trainer.end is not None
    summary = {
        **trainer.summary(),
        "exit_code": EXIT_CODES[trainer.end],
        "config": config.model_dump(mode="json"),
    }
    if not trainer.world.is_writer:
        return summary
    assert isinstance(trainer.network, DenoisingNetwork)
    trainer.load_average()
    save_weights(trainer.network, folder / "weights.safetensors")
    write_json(folder / "training.json", summary)
    write_atomically(folder / "loss.png", plot_loss(trainer.log.rows, config.training.threshold))
    click.echo(verdict(summary))
    click.echo(f"weights: {folder / 'weights.safetensors'}")
    if trainer.end == "interrupted":
        click.echo("--resume goes on from here", err=True)
    return summary


def verdict(summary: dict[str, Any]) -> str:
    """One line: the end, and the loss beside the threshold."""
    loss, threshold = summary["loss"], summary["threshold"]
    text = f"{summary['end']} after {summary['steps']} steps on rung {summary['rung']}"
    if loss is not None:
        text += f": loss {loss:.6g}"
        if threshold is not None:
            text += f" {'<=' if loss <= threshold else '>'} threshold {threshold:g}"
        text += f", {summary['psnr_db']:.2f} dB on the check pairs"
    return text


def make_mix(config: TrainingConfig, data: Sequence[Data], memory: int, world: World) -> Mix:
    """The sources of a list of [[data]] or [[check]] sections.

    memory: bytes of pair images to hold in all. Raises as the sources do.
    """
    pair_sets = sum(section.pairs is not None for section in data)
    sources = [(_source(section, memory // max(1, pair_sets)), section.weight) for section in data]
    training = config.training
    return Mix(sources, training.batch, training.patch, config.seed, world)


def _source(section: Data, memory: int) -> Source:
    if section.clean is not None:
        own = section.clean == OWN_PHOTOGRAPHS
        photographs = load_photographs([] if own else [Path(expanded_path(section.clean))])
        zoom_max = 1.0 if section.zoom_max is None else section.zoom_max
        return CleanSource(photographs, section.noise(), zoom_max)
    assert section.pairs is not None
    pairs = read_pairs(expanded_path(section.pairs)).pairs
    chosen = [pair for pair in pairs if section.only in (None, pair.source)]
    if not chosen:
        raise ValueError(f"training data: {section.pairs} must hold {section.only} pairs, got none")
    return PairSource(PairImages(chosen, memory))
