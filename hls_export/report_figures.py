"""The figures of the chip report as inline SVG (`starlight.pages`)."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter

from hls_export.cycles import FrameCost, Phase, dma_cycles, macs_per_cycle
from hls_export.npu import Performance
from hls_export.plan import StripePlan
from starlight.pages import (
    INK,
    WIDTH,
    Box,
    address_map_svg,
    colour,
    house_style,
    inline_svg,
)

COMPUTE, DMA = colour(0), colour(2)
KIB = 1 << 10
ROW = 0.19  # inches of a layer's row


def timeline_svg(cost: FrameCost) -> str:
    """Layers down, time across: how long each layer keeps the array and the DMA.

    Layers of a phase take turns tile by tile; their turns are drawn together, one layer behind the
    other. The first row is all of them.
    """
    names = [layer.layer for layer in cost.layers]
    milliseconds = 1e3 / cost.clock_hz
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.2 + ROW * (len(names) + 1)), layout="constrained")
        axes = figure.subplots()
        start, row = 0.0, 1
        for index, phase in enumerate(cost.phases):
            length = phase.cycles * milliseconds
            if index % 2 and len(cost.phases) < len(names):
                axes.axvspan(start, start + length, color=INK, alpha=0.06, linewidth=0)
            turns = [(layer.compute_cycles, layer.dma_cycles) for layer in phase.layers]
            for shade, below, cycles in zip(
                (COMPUTE, DMA), (0.04, 0.52), zip(*turns, strict=True), strict=True
            ):
                left = start
                for place, turn in enumerate(cycles, row):
                    wide = turn * milliseconds
                    for top in (below, place + below):
                        bar = Rectangle((left, top), wide, 0.44, facecolor=shade, linewidth=0)
                        axes.add_patch(bar)
                    left += wide
            start += length
            row += len(phase.layers)
        axes.axhline(1, color=INK, linewidth=0.5)
        axes.set_yticks([place + 0.5 for place in range(row)], ["all layers", *names])
        axes.set_ylim(row, 0)
        axes.set_xlim(0, start)
        axes.set_xlabel("ms")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        _legend(figure, {"array": COMPUTE, "DMA": DMA})
        return inline_svg(figure, "timeline", "array and DMA by layer over the time of a frame")


def step_svg(phase: Phase, performance: Performance) -> str:
    """The step of a phase that comes most often: the layers' turns on the array, below on DMA.

    DMA works for the next step while the array works on this one.
    """
    step = max(phase.steps, key=lambda step: (step.count, step.compute_cycles))
    microseconds = 1e6 / performance.clock_hz
    moved = [dma_cycles(work.traffic.dram, performance) for work in step.work]
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.5), layout="constrained")
        axes = figure.subplots()
        longest = max(step.compute_cycles, sum(moved)) * microseconds
        for row, cycles in enumerate(([work.compute_cycles for work in step.work], moved)):
            start = 0.0
            for index, length in enumerate(value * microseconds for value in cycles):
                shade = colour(index)
                bar = Rectangle(
                    (start, row), length, 0.8, facecolor=shade, alpha=0.6, edgecolor=INK, lw=0.4
                )
                axes.add_patch(bar)
                name = phase.layers[index].layer
                if length / longest * 800 > 4.2 * len(name):  # about 800 pt across, 7 pt letters
                    axes.text(
                        start + length / 2, row + 0.4, name, ha="center", va="center", fontsize=7
                    )
                start += length
        axes.set_yticks([0.4, 1.4], ["array", "DMA"])
        axes.set_ylim(1.9, -0.1)
        axes.set_xlim(0, longest)
        axes.set_xlabel("\u00b5s")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        return inline_svg(figure, f"step-{phase.layers[0].layer}", "one tile on array and DMA")


def sram_svg(cost: FrameCost, limit: int) -> str:
    """SRAM that each phase's largest tile holds while each layer runs; limit: the chip's bytes."""
    names = [layer.layer for layer in cost.layers]
    held = [occupancy for phase in cost.phases for occupancy in phase.sram]
    with house_style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        start = [0.0] * len(held)
        for title, shade, sizes in (
            ("filled by DRAM, twice", colour(2), [each.loading for each in held]),
            ("emptied by DRAM, twice", colour(4), [each.storing for each in held]),
            ("between layers", colour(0), [each.between for each in held]),
        ):
            kib = [size / KIB for size in sizes]
            axes.bar(range(len(held)), kib, 1.0, start, color=shade, alpha=0.7, label=title)
            start = [below + size for below, size in zip(start, kib, strict=True)]
        edge = -0.5
        for phase in cost.phases:
            axes.axvline(edge, color=INK, linewidth=0.5)
            edge += len(phase.layers)
        axes.axhline(limit / KIB, color=INK, linestyle="--", linewidth=0.8)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel("KiB")
        axes.grid(False, axis="x")
        figure.legend(ncols=3, loc="outside upper right")
        return inline_svg(figure, "sram", "SRAM held while each layer runs")


def plan_map_svg(plan: StripePlan, weights: Mapping[str, int], limit: int) -> str:
    """SRAM addresses over the items of all groups, tile by tile; weights: layer -> its bytes.

    A line buffer lives as long as its group, what is recomputed from its writer to its last reader.
    """
    boxes: list[Box] = []
    start = 0
    for group in plan.groups:
        end = start + len(group.items)
        for index, window in enumerate(group.windows):
            users = [
                place
                for place, item in enumerate(group.items, start)
                if index in (item.input, item.join, item.output)
            ]
            first, last = (start, end) if window.keep else (users[0], users[-1] + 1)
            name = f"{window.buffer}[{window.offset}:{window.offset + window.channels}]"
            kind = "line buffer" if window.keep else "recomputed"
            boxes.append(Box(name, kind, first, last, window.address, window.size))
        for item in group.items:
            if item.layer is not None and item.weight_address is not None:
                size = weights[item.layer]
                boxes.append(Box(item.layer, "weights", start, end, item.weight_address, size))
        start = end
    label = "SRAM map: addresses over the loads and layers of each group"
    return address_map_svg(boxes, start, "item", "sram-map", label, limit)


def roofline_svg(schedules: Mapping[str, FrameCost], performance: Performance) -> str:
    """Multiply-accumulates per second over those per byte of DRAM: phases under the chip's roof."""
    peak = macs_per_cycle(performance) * performance.clock_hz
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        places = []
        for index, (title, cost) in enumerate(schedules.items()):
            points = [
                (
                    phase.macs / phase.traffic.dram,
                    phase.macs * cost.clock_hz / phase.cycles / 1e9,
                    phase.cycles,
                )
                for phase in cost.phases
            ]
            places += points
            across, up, cycles = zip(*points, strict=True)
            longest = max(cycles)
            axes.scatter(
                across,
                up,
                s=[12 + 160 * value / longest for value in cycles],
                color=colour(index * 3),
                alpha=0.6,
                edgecolors=INK,
                linewidths=0.4,
                label=title,
            )
        low, high = min(x for x, _, _ in places) / 2, max(x for x, _, _ in places) * 2
        ridge = peak / performance.dram_bytes_per_second
        line = sorted({low, min(max(ridge, low), high), high})
        roof = [min(peak, x * performance.dram_bytes_per_second) / 1e9 for x in line]
        axes.plot(line, roof, color=INK, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(top=peak / 1e9 * 1.6)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("MAC per byte of DRAM")
        axes.set_ylabel("GMAC/s")
        figure.legend(ncols=len(schedules), loc="outside upper right")
        return inline_svg(figure, "roofline", "roofline of the chip with the phases of a frame")


def _legend(figure: Figure, entries: Mapping[str, str]) -> None:
    figure.legend(
        [Patch(color=shade) for shade in entries.values()],
        list(entries),
        ncols=len(entries),
        loc="outside upper right",
    )
