"""Frames per second and memory of `starlight denoise`: `python -m benchmarks.pipeline`.

Decoding, the network and encoding apart, each on frames in memory; then peak memory of the command
on a video, in a process of its own.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from starlight.denoise.denoiser import Denoiser
from starlight.denoise.executors import EXECUTORS, Executor
from starlight.denoise.video import load_av
from starlight.evaluation.photographs import evaluation_photographs
from starlight.evaluation.suites import image_seed
from starlight.noise import NoiseCondition
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT = ROOT / "docs" / "DENOISE.md"
SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080), "3840x2160": (3840, 2160)}
CONDITION = "iso_6400"
TITLES = ("size", "executor", "decode, frames/s", "network, frames/s", "encode, frames/s",
          "command, frames/s", "peak, MB")  # fmt: skip


def noisy_frame(width: int, height: int) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: a photograph side by side, with camera noise."""
    image = next(iter(evaluation_photographs().values()))
    repeats = (height // image.shape[0] + 1, width // image.shape[1] + 1, 1)
    clean = np.tile(image, repeats)[:height, :width]
    return NoiseCondition.parse(CONDITION).apply(clean, image_seed("pipeline", CONDITION))


def per_second(run: Callable[[], object], seconds: float) -> float:
    """Runs per second over at least `seconds`, after one that does not count."""
    run()
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        run()
        count += 1
    return count / (time.perf_counter() - start)


def write_video(path: Path, frame: NDArray[np.uint8], count: int) -> float:
    """Write a video of one frame over and over; frames encoded per second."""
    av = load_av()
    with av.open(str(path), "w") as container:
        options = {"crf": "14", "preset": "medium"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuv420p"
        start = time.perf_counter()
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(np.roll(frame, number, axis=1), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        return count / (time.perf_counter() - start)


def decode_rate(path: Path, count: int) -> float:
    """Frames decoded to RGB per second."""
    av = load_av()
    with av.open(str(path)) as container:
        start = time.perf_counter()
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
        return count / (time.perf_counter() - start)


def command_peak(source: Path, weights: str, executor: str, frames: int) -> tuple[float, float]:
    """(frames per second with the start, peak resident MB) of the command."""
    target = source.with_name("out.mkv")
    words = ["denoise", str(source), str(target), "--weights", weights, "--executor", executor,
             "--frames", str(frames), "--overwrite"]  # fmt: skip
    start = time.perf_counter()
    arguments = [sys.executable, "-P", "-m", "starlight", *words]
    child = os.posix_spawn(sys.executable, arguments, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise ValueError(f"pipeline: starlight denoise must end well, got status {status}")
    return frames / (time.perf_counter() - start), usage.ru_maxrss / 1024.0


def measure(
    case: str, executors: tuple[str, ...], bundle: Path, frames: int, seconds: float
) -> list[dict[str, Any]]:
    width, height = SIZES[case]
    frame = noisy_frame(width, height)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.mkv"
        encode = write_video(source, frame, frames)
        decode = decode_rate(source, frames)
        for executor in executors:
            weights = str(bundle) if executor == Executor.ENGINE.value else "edge"
            try:
                denoiser = Denoiser(weights, executor=executor)
            except (ImportError, FileNotFoundError) as error:
                click.echo(f"{executor} left out: {error}", err=True)
                continue
            rate = per_second(lambda made=denoiser: made.denoise(frame), seconds)  # type: ignore[misc]
            whole, peak = command_peak(source, weights, executor, frames)
            rows.append(
                {"case": case, "executor": executor, "decode_fps": decode, "network_fps": rate,
                 "encode_fps": encode, "command_fps": whole, "peak_mb": peak, "frames": frames}
            )  # fmt: skip
    return rows


@click.command(
    "pipeline",
    cls=Benchmark,
    cases=tuple(SIZES),
    quick={"frames": 2, "seconds": 0.0, "only": ("640x480",)},
)
@click.option(
    "--executor", "executors", multiple=True, type=click.Choice(EXECUTORS), default=EXECUTORS,
    help="Repeatable.  [default: all]",
)  # fmt: skip
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=ROOT / "runs/qat-edge/model.slb",
    help="Of the engine.  [default: that of make demo]",
)
@click.option("--frames", type=click.IntRange(1), default=8, show_default=True, help="Of a video.")
@click.option("--seconds", type=click.FloatRange(0), default=4.0, show_default=True)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/DENOISE.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    executors: tuple[str, ...],
    bundle: Path,
    frames: int,
    seconds: float,
    write_docs: bool,
) -> dict[str, Any]:
    """`starlight denoise` on videos: decode, network, encode apart; the command's peak memory."""
    if write_docs:
        check_block(DOCUMENT, "pipeline")
    rows = [row for case in cases for row in measure(case, executors, bundle, frames, seconds)]
    lines = [
        [
            row["case"], row["executor"],
            *(f"{row[f'{part}_fps']:.2f}" for part in ("decode", "network", "encode", "command")),
            f"{row['peak_mb']:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    table = markdown_table(TITLES, lines)
    click.echo(table)
    if write_docs:
        write_block(
            DOCUMENT, "pipeline",
            f"Preset `edge`, {frames} frames a video; `command` includes its start. {machine}."
            f"\n\n{table}",
        )  # fmt: skip
    return {"rows": rows}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.pipeline")
