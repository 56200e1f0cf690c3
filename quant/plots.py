"""The figures of the run report as inline SVG (`starlight.pages`)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from starlight.pages import (
    INK,
    MIB,
    WIDTH,
    Box,
    address_map_svg,
    colour,
    house_style,
    inline_svg,
)

# Middle tones, distinct on white and on black and to colour-blind eyes.
COLOURS = {"noisy": "#8a8f98", "float": "#3a8fd0", "ptq": "#d98511", "qat": "#1e9e74"}
TITLES = {"noisy": "noisy", "float": "float", "ptq": "PTQ", "qat": "QAT"}
MARKERS = {
    "noisy": "x",
    "float": "o",
    "ptq": "s",
    "qat": "D",
}  # Float's is a ring around the others, which often hide it.
MARKER_SIZES = {"noisy": 4, "float": 9, "ptq": 4, "qat": 4}


def psnr_svg(
    psnr: Mapping[str, Mapping[str, float]],
    deltas: Mapping[str, Mapping[str, float]],
    families: Sequence[Sequence[str]],
) -> str:
    """PSNR by condition, and below it what integers lose or win against float.

    psnr: series -> condition -> dB. deltas: series -> condition -> dB minus float's.
    families: conditions that one line joins, in the order of the axis.
    """
    conditions = [condition for family in families for condition in family]
    place = {condition: index for index, condition in enumerate(conditions)}
    with house_style():
        figure = Figure(figsize=(WIDTH, 5.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for series, values in psnr.items():
            for index, family in enumerate(families):
                upper.plot(
                    [place[condition] for condition in family],
                    [values[condition] for condition in family],
                    color=COLOURS[series],
                    marker=MARKERS[series],
                    markersize=MARKER_SIZES[series],
                    markerfacecolor="none" if series == "float" else None,
                    linewidth=1.2,
                    label=None if index else TITLES[series],
                )
        upper.set_ylabel("PSNR, dB")
        upper.legend(ncols=len(psnr), loc="upper right", bbox_to_anchor=(1, 1.12))
        width = 0.8 / len(deltas)
        for index, (series, values) in enumerate(deltas.items()):
            offset = (index - (len(deltas) - 1) / 2) * width
            finite = [condition for condition in conditions if math.isfinite(values[condition])]
            lower.bar(
                [place[condition] + offset for condition in finite],
                [values[condition] for condition in finite],
                width,
                color=COLOURS[series],
            )
        lower.axhline(0, color=INK, linewidth=0.8)
        lower.set_ylabel("against float, dB")
        lower.set_xticks(range(len(conditions)), conditions)
        lower.grid(False, axis="x")
        return inline_svg(figure, "psnr", "PSNR by condition, and integers against float")


def loss_svg(loss: Sequence[tuple[int, float]]) -> str:
    """Smoothed loss over training steps."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        steps, values = zip(*loss, strict=True)
        axes.plot(steps, values, color=COLOURS["qat"], marker="o" if len(loss) == 1 else None)
        if min(values) > 0:  # a loss that is a logarithm has a linear axis
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.set_xlabel("step")
        axes.set_ylabel("loss, smoothed")
        return inline_svg(figure, "loss", "training loss")


def sensitivity_svg(decibels: Mapping[str, float]) -> str:
    """What rounding each buffer alone is foreseen to cost, the largest first."""
    ordered = sorted(decibels.items(), key=lambda item: -item[1])
    names, values = [name for name, _ in ordered], [value for _, value in ordered]
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.6 + 0.19 * len(names)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh(range(len(names)), values, color=COLOURS["ptq"])
        axes.bar_label(bars, [f"{value:.2g}" for value in values], padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("foreseen loss, dB")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.06, y=0.01)
        return inline_svg(
            figure, "sensitivity", "foreseen loss in dB of rounding each buffer alone"
        )


def layers_svg(
    names: Sequence[str],
    macs: Sequence[int],
    traffic: Mapping[str, Sequence[int]],
    bits: Sequence[int],
    seen_bits: Sequence[int],
    chip_bits: int,
) -> str:
    """Multiply-accumulates, bytes moved and accumulator width, a bar per layer.

    traffic: operand -> bytes of each layer. bits: least proven widths. seen_bits: what
    images reached. chip_bits: the chip's.
    """
    places = range(len(names))
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.0 + 0.19 * len(names)), layout="constrained")
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(3, 4, 2))
        left.barh(places, macs, color=COLOURS["float"])
        left.xaxis.set_major_formatter(EngFormatter(sep=""))
        left.set_title("multiply-accumulates")
        left.set_yticks(places, names)
        left.invert_yaxis()
        start = [0.0] * len(names)
        for index, (title, sizes) in enumerate(traffic.items()):
            mib = [size / MIB for size in sizes]
            middle.barh(places, mib, left=start, color=colour(index), label=title)
            start = [before + size for before, size in zip(start, mib, strict=True)]
        middle.set_title("bytes moved, MiB")
        figure.legend(ncols=len(traffic), loc="outside lower center")
        right.barh(places, bits, color=COLOURS["noisy"])
        right.barh(places, seen_bits, color=COLOURS["float"], height=0.3)
        right.set_title("accumulator, bits")
        right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        right.axvline(chip_bits, color=INK, linestyle="--", linewidth=0.8)
        for axes in (left, middle, right):
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.margins(y=0.01)
        return inline_svg(
            figure, "layers", "multiply-accumulates, bytes and accumulator bits by layer"
        )


def memory_svg(buffers: Sequence[Mapping[str, Any]], layer_count: int, cells: int) -> str:
    """The address plan over time: a box per buffer, layers it lives in by the bytes it holds.

    buffers: `name`, `level`, `address_per_cell`, `bytes_per_cell`, `first_layer`, `last_layer`.
    cells: of the frame that bytes are stated for.
    """
    boxes = [
        Box(
            buffer["name"],
            f"level {buffer['level']}",
            buffer["first_layer"],
            buffer["last_layer"] + 1,
            buffer["address_per_cell"] * cells,
            buffer["bytes_per_cell"] * cells,
        )
        for buffer in sorted(buffers, key=lambda buffer: buffer["level"])
    ]
    label = "memory map: buffers by layer and address"
    return address_map_svg(boxes, layer_count, "layer", "memory", label)
