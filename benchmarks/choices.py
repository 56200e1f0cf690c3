"""What each Choice of the model brings: `python -m benchmarks.choices`.

A small network is trained once per Choice and seed, all else equal, each on one thread. Results are
files in the run folder: the same command goes on where it stopped and trains nothing twice.
"""

from pathlib import Path
from typing import Any

import click

from benchmarks import ROOT
from benchmarks.ablation import BASE, CASES, CONDITIONS, Job, Settings, summarise
from benchmarks.command import Benchmark
from benchmarks.machine import Machine, core_count
from benchmarks.processes import run_side_by_side
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT = ROOT / "docs" / "MODEL.md"
BLOCK = "ablations"
TITLES = (
    "Choice",
    *(f"{condition}, dB" for condition in CONDITIONS),
    *("difference, dB", "by seed", "spread, dB", "kMAC/px", "parameters"),
)


def cells_of(row: dict[str, Any]) -> list[str]:
    """The row of `summarise` as it is printed."""
    own = row["case"] == BASE
    return [
        row["case"],
        *(f"{row['psnr'][condition]:.2f}" for condition in CONDITIONS),
        "" if own else f"{row['difference']:+.2f}",
        "" if own else " ".join(f"{difference:+.2f}" for difference in row["differences"]),
        f"{row['spread']:.2f}" if len(row["seeds"]) > 1 else "",
        f"{row['macs_per_pixel'] / 1e3:.1f}",
        f"{row['parameters']:,}",
    ]


def caption(result: dict[str, Any], seeds: int) -> str:
    """What the figures stand on, in Markdown; result: that of any job."""
    settings, photographs = result["settings"], result["photographs"]
    return (
        f"Base: width {settings['width']}, {settings['levels']} levels, all other Choices at their "
        f"defaults; each row changes one. {settings['steps']} steps of {settings['batch']} patches "
        f"{settings['patch']} x {settings['patch']} in float32, learning rate "
        f"{settings['learning_rate']:g}, photographs: {' and '.join(settings['data'])} "
        f"({photographs['training']}); mean over {seeds} seeds. Measured on the middle "
        f"{settings['crop']} x {settings['crop']} of {photographs['evaluation']} photographs "
        f"({settings['evaluation']}), noisy input in 8 bits, clipped. `difference`: to the base of "
        "the same seed, mean of both conditions; `spread`: largest minus smallest over seeds; a "
        "difference within the spread decides nothing."
    )


def run_jobs(jobs: list[Job], parallel: int) -> list[dict[str, Any]]:
    """The results of all jobs; those without one are run first, `parallel` at a time."""
    missing = [job for job in jobs if job.result() is None]
    click.echo(f"{len(jobs)} trainings, {len(jobs) - len(missing)} of them done")
    try:
        run_side_by_side(
            "benchmarks.ablation_training:run",
            missing,
            parallel=parallel,
            steps=sum(job.settings.steps for job in missing),
        )
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        raise SystemExit(130) from None
    return [result for job in jobs if (result := job.result()) is not None]


_path = click.Path(path_type=Path)


@click.command(
    "choices",
    cls=Benchmark,
    cases=CASES,
    quick={
        "out": "runs/choices-quick",
        "steps": 4,
        "batch": 2,
        "patch": 32,
        "seeds": 1,
        "limit": 1,
        "crop": 64,
        "only": ("skip=module",),
    },
)
@click.option("--out", type=_path, default="runs/choices", show_default=True, help="Run folder.")
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
@click.option("--width", type=click.IntRange(1), default=8, show_default=True)
@click.option("--levels", type=click.IntRange(2), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--patch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--jobs",
    "parallel",
    type=click.IntRange(1),
    default=core_count(),
    show_default="cores",
    help="Trainings at a time, a thread each.",
)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/MODEL.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    out: Path,
    seeds: int,
    parallel: int,
    write_docs: bool,
    **options: Any,
) -> dict[str, Any]:
    """Choices of the model, one change each: PSNR against the base, spread of seeds, cost.

    Trains for about half an hour on two cores; stop and go on as you like.
    """
    if write_docs:
        if cases != tuple(CASES):
            raise ValueError(
                f"choices: --write-docs must have all cases, got {', '.join(cases)}; "
                "leave out --only and --quick"
            )
        check_block(DOCUMENT, BLOCK)
    settings = Settings(**options)
    settings.check_folders()
    names = tuple(dict.fromkeys((BASE, *cases)))
    # Seed by seed: stopped halfway, the first seed's comparison is complete.
    results = run_jobs(
        [Job(case, seed, settings, out) for seed in range(seeds) for case in names], parallel
    )
    rows = summarise(results)
    table = markdown_table(TITLES, [cells_of(row) for row in rows])
    click.echo(table)
    if write_docs:
        write_block(DOCUMENT, BLOCK, f"{caption(results[0], seeds)}\n\n{table}")
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"settings": settings.record(), "rows": rows, "results": results}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.choices")
