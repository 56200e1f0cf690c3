"""What each ingredient of `python -m quant.qat` brings: `python -m benchmarks.recipe`.

One run of the command per case, all else equal: post-training and quantisation-aware integers
against the float network. Runs are folders: the same command goes on where it stopped.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from starlight.tables import check_block, markdown_table, write_block
from starlight.training.loop import CHECKPOINT

DOCUMENT = ROOT / "docs" / "QAT.md"
BLOCK = "recipe"
RECIPE: Final = "recipe"

# Case -> the options that it gives otherwise than the defaults.
CASES: Final[dict[str, tuple[str, ...]]] = {
    RECIPE: (),
    "no gains": ("--no-equalise",),
    "local ranges": ("--ranges", "local"),
    "local ranges, no gains": ("--ranges", "local", "--no-equalise"),
    "l1": ("--objective", "l1"),
    "half distilled": ("--distillation", "0.5"),
    "exponents learned": ("--learned-exponents", "0.8"),
}


def measure(case: str, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The metrics.json of a case, run now unless its folder holds it."""
    folder = out / case.replace(", ", "-").replace(" ", "-")
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        arguments = [
            text
            for name, value in options.items()
            if value is not None
            for text in (f"--{name}", str(value))
        ]
        resume = ["--resume"] if (folder / CHECKPOINT).exists() else []
        command = [sys.executable, "-m", "quant.qat", "--out", str(folder), *resume]
        subprocess.run([*command, *arguments, *CASES[case]], check=True)
    found: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    for name, value in options.items():
        key = name.replace("-", "_")
        plain = str(value) if isinstance(value, Path) else value
        got = found["settings"].get(key, plain)
        if value is not None and got not in (plain, [plain]):
            raise ValueError(
                f"recipe: {name} must be {got} as in {metrics}, got {value}; choose another --out"
            )
    return found


def losses(psnr: dict[str, dict[str, float]], integers: str) -> dict[str, float]:
    """Condition -> dB below float, positive where the integers are worse."""
    return {name: psnr["float"][name] - psnr[integers][name] for name in psnr["float"]}


def cells_of(case: str, metrics: dict[str, Any]) -> list[str]:
    cells = [case]
    for integers in ("ptq", "qat"):
        lost = losses(metrics["psnr"], integers)
        cells += [f"{lost['sigma_5']:.2f}", f"{lost['iso_1600']:.2f}"]
        cells += [f"{max(lost.values()):.2f}", f"{np.mean(list(lost.values())):.2f}"]
    return cells


COLUMNS: Final = ("sigma 5", "ISO 1600", "worst", "mean")
TITLES = ("dB below float", *(f"{kind}: {name}" for kind in ("PTQ", "QAT") for name in COLUMNS))

_path = click.Path(path_type=Path)


@click.command(
    "recipe",
    cls=Benchmark,
    cases=CASES,
    quick={
        "out": "runs/recipe-quick",
        "steps": 2,
        "batch": 1,
        "patch": 32,
        "limit": 1,
        "crop": 64,
        "only": ("no gains",),
    },
)
@click.option("--out", type=_path, default="runs/recipe", show_default=True, help="Run folder.")
@click.option("--weights", default="edge", show_default=True, help="Shipped preset or a file.")
@click.option("--data", type=_path, help="Folder of training photographs.")
@click.option("--mix", type=_path, help="Training file whose [[data]] serves in place of --data.")
@click.option("--evaluation", type=_path, help="Folder of evaluation photographs.")
@click.option("--limit", type=click.IntRange(1), default=24, show_default=True)
@click.option("--crop", type=click.IntRange(11), default=256, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--patch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/QAT.md.")
def main(
    cases: tuple[str, ...], machine: Machine, out: Path, write_docs: bool, **options: Any
) -> dict[str, Any]:
    """Ingredients of the quantisation recipe, each changed alone: dB below float."""
    if write_docs:
        check_block(DOCUMENT, BLOCK)
    options = {"minutes": 1e4, **options}  # steps end a run, whatever the machine's speed
    found = {case: measure(case, out, options) for case in CASES if case in cases or case == RECIPE}
    table = markdown_table(TITLES, [cells_of(case, metrics) for case, metrics in found.items()])
    click.echo(table)
    if write_docs:
        write_block(DOCUMENT, BLOCK, f"{caption(found[RECIPE])}\n\n{table}")
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    psnr = {case: metrics["psnr"] for case, metrics in found.items()}
    return {"settings": found[RECIPE]["settings"], "psnr": psnr}


def caption(metrics: dict[str, Any]) -> str:
    """What the figures stand on, in Markdown."""
    settings, conditions = metrics["settings"], ", ".join(metrics["psnr"]["float"])
    mix = f" on the mix `{Path(settings['mix']).name}`" if settings.get("mix") else ""
    return (
        f"Network `{Path(settings['weights']).stem}`, {settings['steps']} steps of "
        f"{settings['batch']} patches {settings['patch']} x {settings['patch']}{mix}, learning "
        f"rate {settings['learning_rate']:g}. Each row changes one thing. Middle "
        f"{settings['crop']} x {settings['crop']} of the evaluation photographs; worst and mean "
        f"are over {conditions}. Same 8-bit noisy input; every output rounded to 8 bits."
    )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.recipe")
