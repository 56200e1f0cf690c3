"""`starlight denoise`: images, folders, videos, cameras and pipes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np

from starlight.denoise.denoiser import Denoiser
from starlight.denoise.executors import EXECUTORS
from starlight.denoise.jobs import (
    Existing,
    Outcome,
    Settings,
    denoise_paths,
    denoise_raw,
    denoise_y4m,
)
from starlight.denoise.rounding import TO_8BIT, To8Bit
from starlight.denoise.video import VideoSettings, parse_options
from starlight.errors import OneLineErrors
from starlight.files import write_json

PIPE = "-"
RAW_FORMATS: dict[str, Any] = {"rgb24": np.uint8, "rgb48le": np.uint16}


@click.command("denoise", cls=OneLineErrors)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--weights",
    default="edge",
    show_default=True,
    help="A name that ships, a weights file, or a bundle (*.slb).",
)
@click.option(
    "--executor",
    type=click.Choice(EXECUTORS),
    help="Who computes.  [default: engine for a bundle, else fused where it is built]",
)
@click.option(
    "--strength",
    type=float,
    default=1.0,
    show_default=True,
    help="0..1: how much of the noise found is subtracted.",
)
@click.option(
    "--to-8bit",
    type=click.Choice(TO_8BIT),
    help="Round deeper input to 8 bits: nearest, floor(v / 257 + 1/2), or floor, floor(v / 256).",
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option("--resume", is_flag=True, help="Skip what has its output already.")
@click.option("--tile", type=int, help="Side of a tile in pixels; chosen by memory without it.")
@click.option(
    "--memory",
    type=int,
    help="MB that one pass may take, at least 150.  [default: 1280, a bundle 256]",
)
@click.option("--threads", type=int, help="CPU threads of the network.")
@click.option("--codec", help="FFmpeg's name.  [default: libx264; libvpx-vp9 in WebM]")
@click.option(
    "--codec-option", multiple=True, metavar="NAME=VALUE", help="Of the codec; repeatable: crf=10."
)
@click.option("--frames", type=click.IntRange(1), help="Stop a video or camera after so many.")
@click.option(
    "--raw", metavar="WIDTHxHEIGHT", help="IN and OUT are pipes (-) of bare frames of that size."
)
@click.option(
    "--pixel-format",
    type=click.Choice(tuple(RAW_FORMATS)),
    default="rgb24",
    show_default=True,
    help="Samples of --raw.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="What became of each.")
def denoise(
    source: str,
    target: str,
    weights: str,
    executor: str | None,
    strength: float,
    to_8bit: To8Bit | None,
    overwrite: bool,
    resume: bool,
    tile: int | None,
    memory: int | None,
    threads: int | None,
    codec: str | None,
    codec_option: Sequence[str],
    frames: int | None,
    raw: str | None,
    pixel_format: str,
    json_file: Path | None,
) -> None:
    """Denoise an image, a video, a camera, or everything in a folder.

    IN and OUT are files, folders, or - for a pipe: y4m, as of ffmpeg -f yuv4mpegpipe, or with --raw
    bare RGB frames. Exit code 1: some files failed, and stderr says which; 2: nothing was done.
    """
    if overwrite and resume:
        raise ValueError("denoise: --overwrite and --resume must not stand together")
    existing: Existing = "overwrite" if overwrite else "skip" if resume else "refuse"
    video = VideoSettings(codec, parse_options(codec_option), frames, to_8bit)
    size = _size(raw, source, target)
    denoiser = Denoiser(
        weights, executor=executor, tile=tile, threads=threads, strength=strength, memory=memory
    )
    if PIPE in (source, target):
        read = sys.stdin.buffer if source == PIPE else Path(source)
        write = sys.stdout.buffer if target == PIPE else Path(target)
        if isinstance(write, Path) and write.exists() and existing != "overwrite":
            raise ValueError(f"denoise: output must not exist yet, got {write}; or --overwrite")
        if size is not None:
            streams: tuple[BinaryIO, BinaryIO] = sys.stdin.buffer, sys.stdout.buffer
            count = denoise_raw(denoiser, *streams, size, RAW_FORMATS[pixel_format], progress=True)
        else:
            count = denoise_y4m(denoiser, read, write, video, progress=True)
        click.echo(f"{count} frames denoised", err=True)
        return
    outcomes = denoise_paths(denoiser, source, target, Settings(existing, video), progress=True)
    if json_file is not None:
        write_json(json_file, {"executor": denoiser.executor.value, "files": _rows(outcomes)})
    _report(outcomes, Path(source), target)


def _size(raw: str | None, source: str, target: str) -> tuple[int, int] | None:
    """(width, height) of --raw."""
    if raw is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", raw)
    if found is None:
        raise ValueError(f"denoise: --raw must read WIDTHxHEIGHT, got {raw!r}")
    if (source, target) != (PIPE, PIPE):
        raise ValueError(f"denoise: --raw must stand with pipes (- -), got {source} {target}")
    return int(found[1]), int(found[2])


def _rows(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            "source": str(outcome.source),
            "target": None if outcome.target is None else str(outcome.target),
            "frames": outcome.frames,
            "skipped": outcome.skipped,
            "failure": outcome.failure,
        }
        for outcome in outcomes
    ]


def _report(outcomes: list[Outcome], source: Path, target: str) -> None:
    """One line a failure on stderr, one in all on stdout; exits with 1 or 2 where some failed."""
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    if failures and not source.is_dir():
        raise ValueError(failures[0].failure)
    for outcome in failures:
        reason = " ".join(str(outcome.failure).split())
        click.echo(f"Error: {outcome.source}: {reason}", err=True)
    skipped = sum(outcome.skipped for outcome in outcomes)
    done = len(outcomes) - len(failures) - skipped
    parts = [f"{done} denoised"]
    parts += [f"{skipped} skipped"] if skipped else []
    parts += [f"{len(failures)} failed"] if failures else []
    click.echo(f"{', '.join(parts)}: {target}")
    if failures:
        sys.exit(1)
