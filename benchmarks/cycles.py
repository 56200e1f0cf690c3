"""The cycle model beside an independent estimator: `python -m benchmarks.cycles`.

Both get the same layers one at a time, on the same array, memories and DRAM. ZigZag knows neither
how activations lie in DRAM nor that a skip joins an accumulator, so ours are stated without them
here: operands packed, each through DRAM once.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from strategies import random_graph

from benchmarks.command import Benchmark
from benchmarks.executors import CASES as NETWORKS
from benchmarks.machine import Machine
from benchmarks.zigzag import Convolution, Estimate, estimate, missing
from hls_export.cycles import compute_work, convolution_size, dma_cycles
from hls_export.npu import Chip, known_chips, load_chip
from hls_export.schedule import Step, schedule
from quant.integer_graph import IntegerGraph, Layer
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs" / "CYCLES.md"
NETWORK: Final = NETWORKS["edge-451x300"].topology
HEIGHT, WIDTH = 1080, 1920
FIGURES: Final = ("compute_cycles", "cycles", "dram_bytes")
TITLES = (
    "layer",
    *("array, kcycles", "ZigZag", "deviation"),
    *("with DRAM, kcycles", "ZigZag", "deviation"),
    *("DRAM, kB", "ZigZag", "deviation"),
)


def convolution(graph: IntegerGraph, layer: Layer, height: int, width: int) -> Convolution:
    """A layer of a frame in the terms of both models."""
    outputs, inputs, kernel, _ = layer.weight.shape
    rows, columns = convolution_size(graph, layer, height, width)
    return Convolution(layer.name, inputs, outputs, rows, columns, kernel, layer.op.stride)


def ours(chip: Chip, layer: Layer, shape: Convolution, step: Step) -> Estimate:
    """The model's figures for what ZigZag can express."""
    compute = compute_work(layer, shape.rows, shape.columns, chip.performance).compute_cycles
    moved = step.input_bytes + step.weight_bytes + step.output_bytes
    return Estimate(compute, max(compute, dma_cycles(moved, chip.performance)), moved)


def measure(chip: Chip, height: int, width: int, layers: int | None) -> list[dict[str, Any]]:
    """A row per shape of layer: `layers` of this shape, `ours`, `zigzag`, `deviation` of ours.

    layers: at most so many shapes, the first ones.
    """
    graph = random_graph(0, NETWORK)
    steps = schedule(graph, chip.capability.channel_block, height, width)
    shapes: dict[tuple[int, ...], tuple[Layer, Convolution, Step, list[str]]] = {}
    for layer, step in zip(graph.layers, steps, strict=True):
        shape = convolution(graph, layer, height, width)
        key = tuple(value for name, value in asdict(shape).items() if name != "name")
        shapes.setdefault(key, (layer, shape, step, []))[3].append(layer.name)
    chosen = list(shapes.values())[:layers]
    estimates = estimate(chip, [shape for _, shape, _, _ in chosen])
    rows = []
    for (layer, shape, step, names), theirs in zip(chosen, estimates, strict=True):
        mine = ours(chip, layer, shape, step)
        rows.append(
            {
                "chip": chip.name,
                "layers": names,
                "ours": asdict(mine),
                "zigzag": asdict(theirs),
                "deviation": {
                    name: getattr(mine, name) / getattr(theirs, name) - 1 for name in FIGURES
                },
            }
        )
    return rows


def cells_of(row: dict[str, Any]) -> list[str]:
    """The row as it is printed; layers of one shape share it."""
    first, *others = row["layers"]
    cells = [first + (f" and {len(others)} more" if others else "")]
    for name in FIGURES:
        for side in ("ours", "zigzag"):
            cells.append(f"{row[side][name] / 1e3:,.0f}")
        cells.append(f"{100 * row['deviation'][name]:+.1f} %")
    return cells


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All layers together, each shape as often as it occurs."""
    summed = {
        side: {name: sum(len(row["layers"]) * row[side][name] for row in rows) for name in FIGURES}
        for side in ("ours", "zigzag")
    }
    deviation = {name: summed["ours"][name] / summed["zigzag"][name] - 1 for name in FIGURES}
    return {"layers": ["all layers"], **summed, "deviation": deviation}


@click.command(
    "cycles",
    cls=Benchmark,
    cases=known_chips(),
    quick={"layers": 2, "height": 64, "width": 96, "only": ("reference",)},
)
@click.option("--height", type=click.IntRange(1), default=HEIGHT, show_default=True)
@click.option("--width", type=click.IntRange(1), default=WIDTH, show_default=True)
@click.option(
    "--layers", type=click.IntRange(1), help="That many shapes of layers.  [default: all]"
)
@click.option("--write-docs", is_flag=True, help="Put the tables into docs/CYCLES.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    height: int,
    width: int,
    layers: int | None,
    write_docs: bool,
) -> dict[str, Any]:
    """The cycle model beside ZigZag's, layer by layer of `edge` on a chip."""
    if write_docs:
        for name in cases:
            check_block(DOCUMENT, f"zigzag-{name}")
    elif (reason := missing()) is not None:
        click.echo(f"ZigZag left out: {reason}", err=True)
        return {"width": width, "height": height, "rows": []}
    rows = []
    for name in cases:
        found = measure(load_chip(name), height, width, layers)
        table = markdown_table(TITLES, [cells_of(row) for row in [*found, total(found)]])
        click.echo(f"{name}, {width}x{height}\n{table}")
        if write_docs:
            write_block(DOCUMENT, f"zigzag-{name}", table)
        rows += found
    return {"width": width, "height": height, "rows": rows}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.cycles")
