"""Flicker of static areas of a video before and after denoising: `python -m benchmarks.flicker`.

A photograph stands still under noise that is new in every frame. Flicker is the standard deviation
of a pixel over time, root mean square over the picture, in 8-bit steps.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from starlight.denoise.denoiser import Denoiser
from starlight.evaluation.photographs import evaluation_photographs
from starlight.evaluation.suites import image_seed
from starlight.noise import NoiseCondition
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT = ROOT / "docs" / "DENOISE.md"
PICTURE = ROOT / "docs" / "images" / "flicker.png"
CONDITIONS = ("iso_1600", "iso_6400", "iso_25600")
PHOTOGRAPH, CROP, ROW = "chelsea", np.s_[40:232, 100:356], 96
SHOWN = "iso_6400"
TITLES = ("condition", "noisy", "denoised", "ratio")


def flicker(frames: NDArray[np.uint8]) -> float:
    """Root mean square over pixels of the standard deviation over time; frames [T, H, W, 3]."""
    return float(np.sqrt(frames.astype(np.float64).var(axis=0, ddof=1).mean()))


def plot(noisy: NDArray[np.uint8], denoised: NDArray[np.uint8], path: Path) -> None:
    """One row of pixels over time, and how much each pixel varies, before and after."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(1, 3))
    spread = [frames.astype(np.float64).std(axis=0, ddof=1).mean(axis=2) for frames in
              (noisy, denoised)]  # fmt: skip
    most = float(np.percentile(spread[0], 99))
    for column, (name, frames) in enumerate((("noisy", noisy), ("denoised", denoised))):
        over_time = np.repeat(frames[:, ROW], 3, axis=0)
        axes[0, column].imshow(over_time, aspect="auto", interpolation="nearest")
        axes[0, column].set(
            title=f"{name}: row {ROW} over {len(frames)} frames", xticks=[], yticks=[]
        )
        shown = axes[1, column].imshow(spread[column], vmin=0, vmax=most, cmap="magma")
        axes[1, column].set(title=f"standard deviation over time, mean {spread[column].mean():.2f}",
                            xticks=[], yticks=[])  # fmt: skip
    figure.colorbar(shown, ax=axes[1, :], label="8-bit steps")
    figure.savefig(path, dpi=110)


@click.command(
    "flicker", cls=Benchmark, cases=CONDITIONS, quick={"frames": 3, "only": ("iso_6400",)}
)
@click.option("--weights", default="edge", show_default=True)
@click.option("--frames", type=click.IntRange(2), default=24, show_default=True)
@click.option("--write-docs", is_flag=True, help="Table and picture of docs/DENOISE.md.")
def main(
    cases: tuple[str, ...], machine: Machine, weights: str, frames: int, write_docs: bool
) -> dict[str, Any]:
    """Flicker of a static picture, noisy and denoised frame by frame."""
    if write_docs:
        check_block(DOCUMENT, "flicker")
    denoiser = Denoiser(weights)
    clean = np.ascontiguousarray(evaluation_photographs()[PHOTOGRAPH][CROP])
    rows: list[dict[str, Any]] = []
    for name in cases:
        condition = NoiseCondition.parse(name)
        seeds = [image_seed(PHOTOGRAPH, name, number) for number in range(frames)]
        noisy = np.stack([condition.apply(clean, seed) for seed in seeds])
        denoised = denoiser.denoise(noisy)
        before, after = flicker(noisy), flicker(denoised)
        rows.append({"condition": name, "noisy": before, "denoised": after})
        if write_docs and name == SHOWN:
            plot(noisy, denoised, PICTURE)
    lines = [
        [row["condition"], f"{row['noisy']:.2f}", f"{row['denoised']:.2f}",
         f"{row['noisy'] / row['denoised']:.1f}"]
        for row in rows
    ]  # fmt: skip
    table = markdown_table(TITLES, lines)
    click.echo(table)
    if write_docs:
        write_block(DOCUMENT, "flicker", table)
    return {"rows": rows, "frames": frames}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.flicker")
