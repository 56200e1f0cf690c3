"""What a bundle costs on its chip, for people: one HTML file, and the figures as CSV and JSON.

The page opens with time, traffic and energy of a frame by each schedule, and goes on to the
timeline, the SRAM over time, the roofline and every layer. The same bundle gives the same bytes.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from markupsafe import Markup

from hls_export import energy
from hls_export.bundle import Bundle, read_bundle
from hls_export.compression import weight_gain
from hls_export.costs import chip_of, frame_costs
from hls_export.cycles import FrameCost, summary, weight_transfer
from hls_export.document import bundle_document
from hls_export.export import pack_csv
from hls_export.memory import cells
from hls_export.npu import Chip
from hls_export.options import PATH, chip_option, frame_option
from hls_export.schedule import saved_by_joins, schedule
from quant.integer_graph import IMAGE
from starlight.files import check_folder, write_atomically, write_json

SUFFIX = ".html"


@dataclass(frozen=True)
class ChipReport:
    """A bundle on a chip. schedules: title -> cost of a frame, the one that is drawn first."""

    bundle: Bundle
    chip: Chip
    schedules: Mapping[str, FrameCost]

    @property
    def title(self) -> str:
        return next(iter(self.schedules))

    @property
    def cost(self) -> FrameCost:
        return self.schedules[self.title]

    @cached_property
    def weight_gain(self) -> dict[str, Any]:
        return weight_gain(self.bundle)

    @property
    def saved_by_joins(self) -> dict[str, int]:
        block = self.bundle.model.channel_block
        return saved_by_joins(
            schedule(self.bundle.graph(), block, self.cost.height, self.cost.width)
        )


def make_report(bundle: Bundle, chip: Chip, height: int, width: int) -> ChipReport:
    """The costs of a bundle on a frame of height x width pixels."""
    schedules = frame_costs(bundle.graph(), chip, height, width, bundle.stripes)
    return ChipReport(bundle, chip, schedules)


def write_report(report: ChipReport, path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write PATH.html and beside it PATH.csv and PATH.json, each atomically; returns the three.

    Raises ValueError for another suffix, FileNotFoundError when the folder is missing.
    """
    page = Path(path)
    if page.suffix != SUFFIX:
        raise ValueError(f"report: file must end in {SUFFIX}, got {os.fspath(path)!r}")
    check_folder(page)
    table, document = page.with_suffix(".csv"), page.with_suffix(".json")
    write_atomically(table, pack_csv(layer_rows(report)).encode("utf-8"))
    write_json(document, report_document(report))
    write_atomically(page, render_report(report).encode("utf-8"))
    return page, table, document


def layer_rows(report: ChipReport) -> list[dict[str, str | int]]:
    """A row per schedule and layer: cycles, MACs, bytes by memory and direction, picojoules; bytes
    of the weights, plain and compressed."""
    gain = report.weight_gain["layers"]
    return [
        {
            "schedule": title,
            "phase": index,
            "layer": layer.layer,
            "macs": layer.macs,
            "compute_cycles": layer.compute_cycles,
            "dma_cycles": layer.dma_cycles,
            "stall_cycles": layer.stall_cycles,
            **asdict(layer.traffic),
            "weight_bytes": gain[layer.layer]["plain_bytes"],
            "compressed_weight_bytes": gain[layer.layer]["compressed_bytes"],
            **{f"{part}_pj": round(joules * 1e12) for part, joules in asdict(layer.energy).items()},
        }
        for title, cost in report.schedules.items()
        for index, phase in enumerate(cost.phases)
        for layer in phase.layers
    ]


def report_document(report: ChipReport) -> dict[str, Any]:
    """Everything that the page states, in JSON types."""
    return {
        "model": report.bundle.text(report.bundle.model.name),
        "chip": report.chip.model_dump(),
        "frame": {"width": report.cost.width, "height": report.cost.height},
        "energy": energy.SOURCE,
        "compressed_weights": report.weight_gain,
        "saved_by_joins": report.saved_by_joins,
        "schedules": {title: summary(cost) for title, cost in report.schedules.items()},
        "layers": layer_rows(report),
    }


def render_report(report: ChipReport) -> str:
    """The page as HTML text."""
    from hls_export import report_figures as figures  # matplotlib takes half a second
    from quant.plots import memory_svg
    from starlight.pages import page_environment

    performance = report.chip.performance
    cost = report.cost
    frame_cells = cells(report.bundle.model.levels, cost.height, cost.width)
    buffers = bundle_document(report.bundle)["buffers"]
    placed = [buffer for buffer in buffers if buffer["name"] != IMAGE]
    weights = {
        layer.name: weight_transfer(report.chip, layer) for layer in report.bundle.graph().layers
    }
    environment = page_environment(Path(__file__).parent / "templates")
    environment.filters["words"] = _words
    return environment.get_template("chip_report.html.j2").render(
        report=report,
        model=report.bundle.text(report.bundle.model.name),
        summaries={title: summary(each) for title, each in report.schedules.items()},
        rows=[(index, layer) for index, phase in enumerate(cost.phases) for layer in phase.layers],
        peak=cost.macs_per_cycle,
        source=energy.SOURCE,
        timeline=Markup(figures.timeline_svg(cost)),
        steps=[
            (index, phase, Markup(figures.step_svg(phase, performance)))
            for index, phase in enumerate(cost.phases)
            if len(phase.layers) > 1
        ],
        sram=Markup(
            figures.sram_svg(cost, performance.sram_bytes)
            if report.bundle.stripes is None
            else figures.plan_map_svg(report.bundle.stripes, weights, performance.sram_bytes)
        ),
        arena=Markup(memory_svg(placed, len(report.bundle.layers), frame_cells)),
        arena_bytes=report.bundle.plan.arena * frame_cells,
        roofline=Markup(figures.roofline_svg(report.schedules, performance)),
    )


def _words(name: str) -> str:
    """The name of a figure as people write it."""
    return re.sub(r"\b[ds]ram\b", lambda match: match[0].upper(), name.replace("_", " "))


@click.command("report")
@click.argument("bundle", type=PATH)
@click.argument("out", type=PATH)
@chip_option
@frame_option("report", "Of every figure.")
def report_command(bundle: Path, out: Path, chip: str | None, frame: tuple[int, int]) -> None:
    """Write time, traffic, memory and energy of a BUNDLE on its chip.

    OUT is an .html file; a .csv and a .json are written beside it.
    """
    opened = read_bundle(bundle)
    report = make_report(opened, chip_of(opened, chip), *frame)
    files = write_report(report, out)
    for title, cost in report.schedules.items():
        click.echo(
            f"{title}: {1e3 * cost.seconds:.2f} ms, {cost.frames_per_second:.1f} frames/s, "
            f"DRAM {cost.traffic.dram / 1e6:.1f} MB, {1e3 * cost.energy.total:.1f} mJ, "
            f"array {100 * cost.utilisation:.1f} % used"
        )
    saved = report.saved_by_joins
    click.echo(
        f"joins copy nothing: {saved['concatenation_bytes'] / 1e6:.1f} MB of concatenation and "
        f"{saved['addition_bytes'] / 1e6:.1f} MB of addition are never moved"
    )
    click.echo(f"written: {', '.join(map(str, files))}")
