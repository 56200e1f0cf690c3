"""How fast each executor runs a bundle: `python -m benchmarks.executors`.

Every layer and the output are held against the numpy interpreter by == before anything is timed.
Timed is what a frame costs once the bundle is open, keeping no layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import numpy as np
from strategies import random_graph, random_image

from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from benchmarks.timing import time_in_turns
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.executors import EXECUTORS, engine
from hls_export.executors.c_runtime import native
from hls_export.memory import cells
from hls_export.npu import load_chip
from hls_export.verify import compare_results
from quant import interpret
from quant.intmath import UInt8Array
from quant.topology import Topology
from starlight.tables import markdown_table

Run = Callable[[UInt8Array], UInt8Array]


@dataclass(frozen=True)
class Case:
    """A network of random weights, `levels` deep with widths doubling and growth half, on a frame.

    Integer arithmetic takes as long with these as with trained ones, and they need no file.
    """

    model: str
    width: int
    levels: int
    frame_width: int
    frame_height: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.frame_width}x{self.frame_height}"

    @property
    def topology(self) -> Topology:
        widths = tuple(self.width << level for level in range(self.levels + 1))
        return Topology(widths, tuple(width // 2 for width in widths))


# The shapes of the presets `tiny` and `edge`; one frame on the grid, one off it.
CASES = {
    case.name: case
    for case in (
        Case("tiny", 8, 2, 48, 32),
        Case("edge", 16, 4, 128, 128),
        Case("edge", 16, 4, 451, 300),
    )
}


def open_numpy(bundle: bytes) -> Run:
    graph = read_bundle(bundle).graph()
    return lambda image: interpret.run(graph, image)


def open_c(bundle: bytes) -> Run:
    model = native().Model(bundle)
    return lambda image: model.run(image)[0]


def open_engine(bundle: bytes) -> Run:
    model = engine.native().Model(bundle)
    return lambda image: model.run(image)[0]


# How each executor opens a bundle once for many frames.
OPEN: dict[str, Callable[[bytes], Run]] = {"numpy": open_numpy, "c": open_c, "engine": open_engine}

TITLES = ("case", "executor", "ms", "p20", "p80", "GMAC/s", "of limit", "cores", "arena MB")


def measure(case: Case, machine: Machine, seconds: float, least: int) -> list[dict[str, Any]]:
    """A row per executor that can run here; arena_bytes is the plan's, for what runs in an arena.

    Raises ValueError when an executor differs from the first, the reference, in any layer.
    """
    graph = random_graph(0, case.topology)
    bundle = pack_bundle(graph, load_chip("reference"))
    image = random_image(0, case.frame_height, case.frame_width)
    timings = time_in_turns(verified(case, bundle, image), seconds=seconds, least=least)
    macs = sum(graph.macs(layer, *image.shape[:2]) for layer in graph.layers)
    per_cell = read_bundle(bundle).plan.arena
    rows = []
    for name, timing in timings.items():
        macs_per_s = macs / timing.median_ms * 1e3
        limit = machine.fma_gflop_per_s
        rows.append(
            {
                "case": case.name,
                "executor": name,
                "median_ms": timing.median_ms,
                "p20": timing.p20_ms,
                "p80": timing.p80_ms,
                "runs": len(timing.wall_s),
                "gmac_per_s": macs_per_s / 1e9,
                "of_fma_limit": None if limit is None else 2 * macs_per_s / 1e9 / limit,
                "cores": timing.cores,
                "macs": macs,
                "arena_bytes": per_cell * cells(graph.levels, *image.shape[:2]),
            }
        )
    return rows


def verified(case: Case, bundle: bytes, image: UInt8Array) -> dict[str, Callable[[], UInt8Array]]:
    """Executor -> its run of `image`, the bundle open; each equal to the reference by ==.

    Raises ValueError for the first difference.
    """
    reference, *_ = EXECUTORS
    golden = reference.run(bundle, image)
    peers: dict[str, Callable[[], UInt8Array]] = {}
    for executor in EXECUTORS:
        if (reason := executor.available()) is not None:
            click.echo(f"{executor.name} left out: {reason}", err=True)
            continue
        difference = compare_results(executor.run(bundle, image), golden)
        run = OPEN[executor.name](bundle)
        if difference is None and not np.array_equal(run(image), golden.output):
            difference = "another output when no layer is kept"
        if difference is not None:
            raise ValueError(
                f"{case.name}: {executor.name} must equal {reference.name}, got {difference}"
            )
        peers[executor.name] = partial(run, image)
    return peers


def cells_of(row: dict[str, Any]) -> list[str]:
    """The row as it is printed."""
    share = row["of_fma_limit"]
    return [
        row["case"],
        row["executor"],
        *(f"{row[key]:.1f}" for key in ("median_ms", "p20", "p80")),
        f"{row['gmac_per_s']:.2f}",
        "-" if share is None else f"{100 * share:.1f} %",
        f"{row['cores']:.1f}",
        f"{row['arena_bytes'] / 1e6:.2f}",
    ]


@click.command(
    "executors",
    cls=Benchmark,
    cases=CASES,
    quick={"seconds": 0.0, "least": 1, "only": ("tiny-48x32",)},
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Time each executor for at least that long.",
)
@click.option(
    "--least", type=click.IntRange(1), default=5, show_default=True, help="Runs at the least."
)
def main(cases: tuple[str, ...], machine: Machine, seconds: float, least: int) -> dict[str, Any]:
    """Executors of a bundle, all bits compared first: milliseconds, GMAC/s, arena.

    `of limit` is of one core's float32 multiply-adds. `cores` is how many were kept busy: below 1
    the machine had other work, and only the ratios between executors say something.
    """
    rows = [row for case in cases for row in measure(CASES[case], machine, seconds, least)]
    click.echo(markdown_table(TITLES, [cells_of(row) for row in rows]))
    return {"rows": rows}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.executors")
