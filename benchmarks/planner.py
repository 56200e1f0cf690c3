"""`python -m benchmarks.planner`: DRAM traffic of the stripe plan beside simpler ways to run.

A graph of the shape of `edge` (traffic does not depend on its numbers), on each chip that ships, on
one frame. Beside the plan: layer by layer, each through its own best tiles; uniform stripes of the
frame's width, whose halo is recomputed; what no plan can avoid in the chip's SRAM, and in any.
"""

import time
from typing import Any

import click
import numpy as np

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from hls_export.group_shape import FRAME, Options
from hls_export.lower_bound import least_traffic
from hls_export.npu import Chip, known_chips, load_chip
from hls_export.plan import StripePlan, Traffic, layer_weight_bytes, traffic
from hls_export.plan_check import check_stripes
from hls_export.planner import plan_stripes
from hls_export.schedule import saved_by_joins, schedule
from quant import contract
from quant.integer_graph import IntegerGraph
from quant.topology import LayerShape, Numbers, Topology, assemble, buffer_shapes
from starlight.models.config import preset
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT = ROOT / "docs" / "PLANNER.md"
BLOCK = "planner"
WAYS = {
    "layer by layer": Options(longest=1, rematerialise=False),
    "uniform stripes": Options(keep=False, full_width=True, rematerialise=False),
    "plan": Options(),
}
TITLES = (
    *("chip", "SRAM, KiB", "layer by layer, MB", "uniform stripes, MB", "plan, MB"),
    *("no plan below, MB", "least for any SRAM, MB"),
    *("groups", "SRAM used, KiB", "recomputed", "search, s of CPU"),
)


def graph_of(name: str) -> IntegerGraph:
    """A preset's shape with weights of one."""
    config = preset(name)
    topology = Topology(config.widths, config.growths)

    def numbers(shape: LayerShape) -> Numbers:
        channels = shape.weight_shape[0]
        return Numbers(
            np.ones(shape.weight_shape, np.int8),
            np.full(channels, 7),
            np.zeros(channels, np.int64),
        )

    exponents = {buffer: contract.IMAGE_EXPONENT for buffer, _, _ in buffer_shapes(topology)}
    return assemble(topology, name, exponents, numbers)


def least_bytes(graph: IntegerGraph, chip: Chip) -> int:
    """Bytes that any way must move: the image in, once more for the tail, out, weights once."""
    height, width = FRAME
    block, decoder = chip.capability.channel_block, chip.performance.weight_decoder
    weights = sum(layer_weight_bytes(layer, block, decoder) for layer in graph.layers)
    return 3 * height * width * contract.IMAGE_CHANNELS + weights


def measure(graph: IntegerGraph, chip: Chip) -> dict[str, Any]:
    """Figures of one chip; a way that does not fit is None."""
    found: dict[str, Any] = {"chip": chip.name, "sram_bytes": chip.performance.sram_bytes}
    for name, options in WAYS.items():
        begin = time.process_time()
        try:
            stripes = plan_stripes(graph, chip, options)
        except ValueError as error:
            found[name] = {"refused": str(error)}
            continue
        seconds = time.process_time() - begin
        block = chip.capability.channel_block
        check_stripes(graph, stripes, chip.performance.sram_bytes, block, FRAME)
        found[name] = _figures(
            stripes,
            traffic(graph, stripes, block, *FRAME, chip.performance.weight_decoder),
            seconds,
        )
    found["bound_bytes"] = least_traffic(graph, chip)
    found["least_bytes"] = least_bytes(graph, chip)
    return found


def _figures(stripes: StripePlan, moved: Traffic, seconds: float) -> dict[str, Any]:
    return {
        "dram_bytes": moved.total,
        "by_kind": {
            kind: getattr(moved, kind) for kind in ("image", "output", "load", "store", "weights")
        },
        "recomputed": moved.recomputed,
        "groups": len(stripes.groups),
        "sram_bytes": stripes.sram,
        "rematerialised": list(stripes.rematerialised),
        "seconds": seconds,
    }


def cells_of(row: dict[str, Any]) -> list[str]:
    """A row of the table."""

    def megabytes(name: str) -> str:
        way = row[name]
        return f"{way['dram_bytes'] / 1e6:.1f}" if "dram_bytes" in way else "does not fit"

    plan = row["plan"]
    return [
        row["chip"],
        f"{row['sram_bytes'] / 1024:.0f}",
        *(megabytes(name) for name in WAYS),
        f"{row['bound_bytes'] / 1e6:.1f}",
        f"{row['least_bytes'] / 1e6:.1f}",
        str(plan["groups"]),
        f"{plan['sram_bytes'] / 1024:.0f}",
        f"{100 * plan['recomputed']:.1f} %",
        f"{plan['seconds']:.1f}",
    ]


@click.command("planner", cls=Benchmark, cases=known_chips(), quick={"only": ("reference",)})
@click.option("--model", default="edge", show_default=True, help="A preset.")
@click.option("--write-docs", is_flag=True, help="Put the table into docs/PLANNER.md.")
def main(cases: tuple[str, ...], machine: Machine, model: str, write_docs: bool) -> dict[str, Any]:
    """DRAM traffic of stripe plans on one frame, beside layer by layer and uniform stripes."""
    if write_docs:
        if cases != tuple(known_chips()):
            raise ValueError(
                f"planner: --write-docs must have all cases, got {', '.join(cases)}; "
                "leave out --only and --quick"
            )
        check_block(DOCUMENT, BLOCK)
    graph = graph_of(model)
    rows = [measure(graph, load_chip(name)) for name in cases]
    rows.sort(key=lambda row: row["sram_bytes"])
    saved = saved_by_joins(schedule(graph, load_chip(cases[0]).capability.channel_block, *FRAME))
    table = markdown_table(TITLES, [cells_of(row) for row in rows])
    click.echo(table)
    if write_docs:
        caption = f"`{model}` at {FRAME[1]}x{FRAME[0]}; MB are 10^6 bytes. Measured on {machine}."
        joins = (
            "Joins copy nothing: concatenations would have moved "
            f"{saved['concatenation_bytes'] / 1e6:.1f} MB more on a frame, additions apart from "
            f"their convolution {saved['addition_bytes'] / 1e6:.1f} MB."
        )
        write_block(DOCUMENT, BLOCK, f"{caption}\n\n{table}\n\n{joins}")
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"model": model, "frame": list(FRAME), "rows": rows, "saved_by_joins": saved}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.planner")
