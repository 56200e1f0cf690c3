"""What size brings: `python -m benchmarks.sizes`. PSNR over multiply-accumulates per pixel.

Networks of the shape of `edge` at several widths, trained alike from scratch, each on one thread.
Results are files in the run folder: the same command goes on where it stopped.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure

from benchmarks import ROOT
from benchmarks.ablation import BASE, CONDITIONS, Job, Settings
from benchmarks.choices import run_jobs
from benchmarks.command import Benchmark
from benchmarks.machine import Machine, core_count
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT = ROOT / "docs" / "MODEL.md"
PICTURE = ROOT / "docs" / "images" / "sizes.png"
BLOCK = "sizes"
LEVELS, BATCH, LEARNING_RATE = 4, 8, 1e-3
WIDTHS = {f"width={width}": width for width in (8, 16, 24)}
TITLES = ("size", *(f"{condition}, dB" for condition in CONDITIONS), "kMAC/px", "parameters")


def per_doubling(rows: list[dict[str, Any]], condition: str) -> float:
    """dB for twice the multiply-accumulates: the slope of the line of least squares."""
    octaves = np.log2([row["macs_per_pixel"] for row in rows])
    return float(np.polyfit(octaves, [row["psnr"][condition] for row in rows], 1)[0])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """PSNR over MACs per pixel, a panel per condition."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    macs = [row["macs_per_pixel"] / 1e3 for row in rows]
    for axes, condition in zip(figure.subplots(1, len(CONDITIONS)), CONDITIONS, strict=True):
        psnr = [row["psnr"][condition] for row in rows]
        axes.plot(macs, psnr, "o-", color="tab:blue")
        for row, x, y in zip(rows, macs, psnr, strict=True):
            axes.annotate(f"{row['size']}: {y:.2f}", (x, y), (6, -12), textcoords="offset points")
        axes.set_xscale("log", base=2)
        axes.set_xticks(macs, [f"{x:.0f}" for x in macs])
        axes.set_xlim(macs[0] / 1.3, macs[-1] * 2.2)
        axes.set(title=condition, xlabel="kMAC per pixel", ylabel="PSNR, dB")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


_path = click.Path(path_type=Path)


@click.command(
    "sizes",
    cls=Benchmark,
    cases=WIDTHS,
    quick={
        "out": "runs/sizes-quick",
        "steps": 2,
        "patch": 16,
        "limit": 1,
        "crop": 64,
        "only": ("width=8",),
    },
)
@click.option("--out", type=_path, default="runs/sizes", show_default=True, help="Run folder.")
@click.option(
    "--data",
    type=_path,
    multiple=True,
    help="Folder of clean training photographs (repeatable).  [default: scikit-image's]",
)
@click.option(
    "--evaluation", type=_path, help="Folder of evaluation photographs.  [default: scikit-image's]"
)
@click.option(
    "--limit", type=click.IntRange(1), default=24, show_default=True, help="Use the first ones."
)
@click.option("--crop", type=click.IntRange(11), default=256, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--patch", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--jobs",
    "parallel",
    type=click.IntRange(1),
    default=core_count(),
    show_default="cores",
    help="Trainings at a time, a thread each.",
)
@click.option("--write-docs", is_flag=True, help="Table and picture of docs/MODEL.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    out: Path,
    parallel: int,
    write_docs: bool,
    **options: Any,
) -> dict[str, Any]:
    """PSNR against cost over three sizes, at the same short training.

    Trains for about a quarter of an hour on two cores; stop and go on as you like.
    """
    if write_docs:
        if cases != tuple(WIDTHS):
            raise ValueError(
                f"sizes: --write-docs must have all cases, got {', '.join(cases)}; "
                "leave out --only and --quick"
            )
        check_block(DOCUMENT, BLOCK)
    jobs = [
        Job(
            BASE,
            0,
            Settings(
                width=WIDTHS[case],
                levels=LEVELS,
                batch=BATCH,
                learning_rate=LEARNING_RATE,
                **options,
            ),
            out / case,
        )
        for case in cases
    ]
    jobs[0].settings.check_folders()
    results = run_jobs(jobs, parallel)
    rows = [
        {
            "size": case,
            "psnr": result["psnr"],
            "macs_per_pixel": result["macs_per_pixel"],
            "parameters": result["parameters"],
        }
        for case, result in zip(cases, results, strict=True)
    ]
    table = markdown_table(
        TITLES,
        [
            [
                row["size"],
                *(f"{row['psnr'][condition]:.2f}" for condition in CONDITIONS),
                f"{row['macs_per_pixel'] / 1e3:.1f}",
                f"{row['parameters']:,}",
            ]
            for row in rows
        ],
    )
    click.echo(table)
    slopes = {name: per_doubling(rows, name) for name in CONDITIONS} if len(rows) > 1 else {}
    for name, slope in slopes.items():
        click.echo(f"{name}: {slope:+.2f} dB for twice the MACs")
    if write_docs:
        settings, photographs = results[0]["settings"], results[0]["photographs"]
        text = (
            f"{LEVELS} levels, all Choices at their defaults. {settings['steps']} steps of {BATCH} "
            f"patches {settings['patch']} x {settings['patch']}, learning rate {LEARNING_RATE:g}, "
            f"photographs: {' and '.join(settings['data'])} ({photographs['training']}); one seed. "
            f"Measured on the middle {settings['crop']} x {settings['crop']} of "
            f"{photographs['evaluation']} photographs ({settings['evaluation']}), noisy input in 8 "
            "bits, clipped. For twice the MACs: "
            + ", ".join(f"{slope:+.2f} dB at {name}" for name, slope in slopes.items())
        )
        write_block(DOCUMENT, BLOCK, f"{text}.\n\n{table}\n\n![PSNR over cost](images/sizes.png)")
        plot(rows, PICTURE)
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"rows": rows, "per_doubling": slopes, "results": results}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.sizes")
