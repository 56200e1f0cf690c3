"""The report of a quantisation run: one HTML file that needs nothing beside it.

It opens with the bit check and the PSNR of float, post-training (PTQ) and quantisation-aware (QAT)
integers, and goes on to pictures, loss, layers, ranges, sensitivity, memory and settings. The same
run gives the same bytes. Plain data in: neither torch nor hls_export is loaded.
"""

import base64
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from quant import plots
from quant.integer_graph import IMAGE
from quant.ranges import BINS, BufferRange
from starlight.evaluation.metrics import psnr
from starlight.files import write_atomically
from starlight.pages import MINUS, TIMES, page_environment

UInt8Image = npt.NDArray[np.uint8]

SERIES: Final = ("noisy", "float", "ptq", "qat")
INTEGERS: Final = ("ptq", "qat")  # the series held against float
VERDICTS: Final = ("PASS", "FAIL", "SKIP")
# What the columns of layers.csv add up to.
TRAFFIC: Final = {
    "input": ("input_bytes",),
    "join": ("join_bytes",),
    "weights": ("weight_bytes", "channel_bytes"),
    "output": ("output_bytes",),
}
CROP: Final = 192  # pixels, shown one to one
DETAIL: Final = 48  # pixels, shown as large as the crop
GAIN: Final = 16  # amplification of the difference between float and integers


@dataclass(frozen=True, eq=False)
class Picture:
    """One photograph under one condition; every image uint8 [H, W, 3] in RGB, of one shape.

    ptq, qat: what the integers put out. Raises TypeError or ValueError for another dtype or shape.
    """

    condition: str
    photograph: str
    clean: UInt8Image
    noisy: UInt8Image
    float_model: UInt8Image
    ptq: UInt8Image
    qat: UInt8Image

    def __post_init__(self) -> None:
        what = f"picture {self.photograph}, {self.condition}"
        for field in fields(self)[2:]:
            image = getattr(self, field.name)
            if image.dtype != np.uint8:
                raise TypeError(f"{what}: {field.name} must be uint8, got {image.dtype}")
            if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(
                    f"{what}: {field.name} must have shape [H, W, 3], got {list(image.shape)}"
                )
            if image.shape != self.clean.shape:
                raise ValueError(
                    f"{what}: {field.name} must have the clean image's shape "
                    f"{list(self.clean.shape)}, got {list(image.shape)}"
                )

    def figures(self) -> dict[str, Any]:
        """What it is and the PSNR in dB of each series."""
        shown = {"noisy": self.noisy, "float": self.float_model, "ptq": self.ptq, "qat": self.qat}
        return {
            "photograph": self.photograph,
            "condition": self.condition,
            "psnr": {series: psnr(self.clean, image) for series, image in shown.items()},
        }


@dataclass(frozen=True, eq=False)
class Run:
    """What a run found, in plain data.

    name: of the model, e.g. "edge"
    chip: a capability file's tables; `capability.accumulator_bits` is drawn beside the layers'
    model, settings: facts to list; mappings within are listed by dotted names
    psnr: "noisy", "float", "ptq", "qat" -> condition -> dB, the same conditions for each
    loss: (step, smoothed loss); empty when nothing was trained
    layers: rows of layers.csv (`hls_export.export.layer_rows`): MACs and bytes on one frame
    ranges: of every buffer (`quant.ranges`)
    sensitivity: buffer -> dB that rounding it alone is foreseen to cost; empty when nobody knows
    accumulator_bits: layer -> least proven width
    sum_bits: layer -> width that its sums reached on images (`quant.ranges.sum_bits`)
    verdicts: the bit check, each with `check`, `verdict` (PASS, FAIL or SKIP) and `detail`
    costs: schedule -> what a frame costs on the chip (`hls_export.cycles.summary`); empty when
        nothing was modelled
    bundle: facts to list. `buffers`, when there, are the buffers of layers.json
        (`hls_export.document.bundle_document`) and are drawn as the memory map
    pictures: before and after
    worst: where QAT loses most against float, of all that was evaluated; None when nobody knows
    files: relative name -> what it is

    Raises ValueError when series, conditions, layers or their accumulator widths are missing, a
    verdict is none of the three, `buffers` and `ranges` name different buffers, or `sensitivity`
    names one that `ranges` does not.
    """

    name: str
    chip: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    psnr: Mapping[str, Mapping[str, float]]
    loss: Sequence[tuple[int, float]]
    layers: Sequence[Mapping[str, Any]]
    ranges: Sequence[BufferRange]
    sensitivity: Mapping[str, float]
    accumulator_bits: Mapping[str, int]
    sum_bits: Mapping[str, int]
    verdicts: Sequence[Mapping[str, str]]
    costs: Mapping[str, Mapping[str, Any]]
    bundle: Mapping[str, Any]
    pictures: Sequence[Picture]
    worst: Picture | None
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        if set(self.psnr) != set(SERIES):
            raise ValueError(f"report: psnr must have {', '.join(SERIES)}, got {list(self.psnr)}")
        conditions = list(self.psnr["float"])
        if not conditions:
            raise ValueError("report: psnr must have at least one condition, got none")
        for series, values in self.psnr.items():
            if set(values) != set(conditions):
                raise ValueError(
                    f"report: psnr of {series} must have the conditions {conditions}, "
                    f"got {list(values)}"
                )
        for row in self.verdicts:
            if row["verdict"] not in VERDICTS:
                raise ValueError(
                    f"report: verdict must be one of {', '.join(VERDICTS)}, got {row['verdict']!r}"
                )
        if not self.layers:
            raise ValueError("report: layers must have at least one row, got none")
        for row in self.layers:
            for name in ("accumulator_bits", "sum_bits"):
                if row["name"] not in getattr(self, name):
                    raise ValueError(
                        f"report: {name} must have layer {row['name']}, "
                        f"got {list(getattr(self, name))}"
                    )
        placed = {buffer["name"] for buffer in self.bundle.get("buffers", ())}
        ranged = {buffer.name for buffer in self.ranges}
        if placed and placed != ranged:
            raise ValueError(
                f"report: ranges must have the bundle's buffers {sorted(placed)}, "
                f"got {sorted(ranged)}"
            )
        if not ranged >= set(self.sensitivity):
            raise ValueError(
                f"report: sensitivity must have buffers of {sorted(ranged)}, "
                f"got {sorted(self.sensitivity)}"
            )


def write_report(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the report of a run, atomically.

    The same run gives the same bytes. Raises FileNotFoundError when the folder is missing.
    """
    write_atomically(path, render_report(run).encode("utf-8"))


def render_report(run: Run) -> str:
    """The report as HTML text."""
    environment = page_environment(Path(__file__).parent / "templates")
    environment.filters.update(db=_db, delta=_delta, bars=_bars, percent=_percent)
    families = condition_families(run.psnr["float"])
    deltas = {
        series: {name: run.psnr[series][name] - run.psnr["float"][name] for name in values}
        for series, values in run.psnr.items()
        if series in INTEGERS
    }
    ordered = {series: run.psnr[series] for series in SERIES}
    return environment.get_template("report.html.j2").render(
        run=run,
        verdict=overall_verdict([row["verdict"] for row in run.verdicts]),
        titles=plots.TITLES,
        psnr_rows=[
            [_psnr_row(ordered, deltas, name, [name]) for name in family]
            + (
                [_psnr_row(ordered, deltas, f"mean of {_word(family[0])}", family)]
                if len(family) > 1
                else []
            )
            for family in families
        ],
        mean=_psnr_row(ordered, deltas, "mean", list(run.psnr["float"])),
        worst={series: min(values, key=values.__getitem__) for series, values in deltas.items()},
        deltas=deltas,
        psnr_plot=Markup(plots.psnr_svg(ordered, deltas, families)),
        pictures=[_panels(picture, edges(picture.clean)) for picture in run.pictures],
        worst_picture=None if run.worst is None else _worst(run.worst),
        gain=GAIN,
        detail=DETAIL,
        bins=BINS,
        dyadic=all(buffer.exponent is not None for buffer in run.ranges),
        loss_plot=Markup(plots.loss_svg(run.loss)) if run.loss else None,
        **_layers(run),
        sensitivity_plot=(
            Markup(plots.sensitivity_svg(run.sensitivity)) if run.sensitivity else None
        ),
        **_memory(run),
        facts={
            "Bundle": dict(_flat({k: v for k, v in run.bundle.items() if k != "buffers"})),
            "Model": dict(_flat(run.model)),
            "Chip": dict(_flat(run.chip)),
            "Settings": dict(_flat(run.settings)),
        },
    )


def overall_verdict(verdicts: Sequence[str]) -> str:
    """FAIL when any check failed, PASS when any passed and none failed, SKIP otherwise."""
    return next((verdict for verdict in ("FAIL", "PASS") if verdict in verdicts), "SKIP")


def condition_families(conditions: Mapping[str, Any]) -> list[list[str]]:
    """Conditions by the word they start with, in order of appearance, numbers ascending."""
    families: dict[str, list[str]] = {}
    for name in conditions:
        families.setdefault(_word(name), []).append(name)
    return [sorted(family, key=_numbers) for family in families.values()]


def _word(name: str) -> str:
    return name.partition("_")[0]


def _numbers(name: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", name)]


def _psnr_row(
    ordered: Mapping[str, Mapping[str, float]],
    deltas: Mapping[str, Mapping[str, float]],
    title: str,
    conditions: Sequence[str],
) -> dict[str, Any]:
    """One condition, or the arithmetic mean of several in dB."""

    def mean(values: Mapping[str, float]) -> float:
        return sum(values[name] for name in conditions) / len(conditions)

    return {
        "title": title,
        "mean": len(conditions) > 1,
        "psnr": [mean(values) for values in ordered.values()],
        "delta_of": {series: mean(values) for series, values in deltas.items()},
    }


def _layers(run: Run) -> dict[str, Any]:
    """Totals and plot of the layers; traffic: operand -> bytes of each layer."""
    chip_bits = run.chip["capability"]["accumulator_bits"]
    last = run.layers[-1]
    traffic = {
        title: [sum(row[key] for key in keys) for row in run.layers]
        for title, keys in TRAFFIC.items()
    }
    svg = plots.layers_svg(
        [row["name"] for row in run.layers],
        [row["macs"] for row in run.layers],
        traffic,
        [run.accumulator_bits[row["name"]] for row in run.layers],
        [run.sum_bits[row["name"]] for row in run.layers],
        chip_bits,
    )
    return {
        "layers_plot": Markup(svg),
        "chip_bits": chip_bits,
        "frame": _size(last["width"], last["height"]),
        "macs": sum(row["macs"] for row in run.layers),
        "traffic": traffic,
    }


def _memory(run: Run) -> dict[str, Any]:
    """The memory map and the records of its buffers, when there are addresses."""
    records = {buffer["name"]: buffer for buffer in run.bundle.get("buffers", ())}
    placed = [record for name, record in records.items() if name != IMAGE]
    if not placed:
        return {"memory_plot": None}
    last = run.layers[-1]  # it writes the padded image
    levels = max(buffer["level"] for buffer in placed)
    cells = (last["height"] * last["width"]) >> 2 * levels
    return {
        "memory_plot": Markup(plots.memory_svg(placed, len(run.layers), cells)),
        "records": records,
        "cells": cells,
        "image": IMAGE,
    }


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Mappings within mappings as dotted names."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _worst(picture: Picture) -> dict[str, Any]:
    """Its detail is where integers add most squared error."""
    clean, float_model, qat = (
        image.astype(np.int64) for image in (picture.clean, picture.float_model, picture.qat)
    )
    excess = ((qat - clean) ** 2 - (float_model - clean) ** 2).sum(axis=2)
    found = picture.figures()["psnr"]
    return {"delta": found["qat"] - found["float"], **_panels(picture, excess)}


def _panels(picture: Picture, energy: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The crops of one picture, left to right, each with its detail; PSNR of the whole image.

    energy: [H, W]; the detail is the window that has most of it.
    """
    top, left = busiest_window(energy, DETAIL)
    height, width = picture.clean.shape[:2]
    detail = (slice(top, top + DETAIL), slice(left, left + DETAIL))
    crop = tuple(
        slice(start, start + CROP)
        for start in (
            min(max(0, start + (DETAIL - CROP) // 2), max(0, size - CROP))
            for start, size in ((top, height), (left, width))
        )
    )
    panels: list[tuple[str, UInt8Image, float | None]] = [
        (title, image, psnr(picture.clean, image))
        for title, image in (
            ("noisy", picture.noisy),
            ("float", picture.float_model),
            ("PTQ", picture.ptq),
            ("QAT", picture.qat),
        )
    ]
    panels.append(("clean", picture.clean, None))
    difference = picture.qat.astype(np.int64) - picture.float_model.astype(np.int64)
    amplified = np.clip(128 + GAIN * difference, 0, 255).astype(np.uint8)
    return {
        "title": f"{picture.photograph}, {picture.condition}",
        "size": _size(width, height),
        "panels": [
            {
                "title": title,
                "psnr": value,
                "crop": _png(image[crop]),
                "detail": _png(image[detail]),
            }
            for title, image, value in panels
        ],
        "difference": {"crop": _png(amplified[crop]), "detail": _png(amplified[detail])},
        "largest": int(np.abs(difference).max()),
        "differing": float(np.mean(difference != 0)),
    }


def edges(image: UInt8Image) -> npt.NDArray[np.int64]:
    """Squared gradient in green, [H, W] of a uint8 [H, W, 3]."""
    green = image[..., 1].astype(np.int64)
    energy = np.zeros(green.shape, dtype=np.int64)
    energy[1:] += np.diff(green, axis=0) ** 2
    energy[:, 1:] += np.diff(green, axis=1) ** 2
    return energy


def busiest_window(energy: npt.NDArray[np.int64], size: int) -> tuple[int, int]:
    """Top and left of the size x size window with the largest sum of `energy` [H, W].

    A side shorter than the window starts at 0. The first of equals wins.
    """
    sums = np.pad(energy, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    rows, columns = (min(size, side) for side in energy.shape)
    windows = (
        sums[rows:, columns:]
        - sums[:-rows, columns:]
        - sums[rows:, :-columns]
        + sums[:-rows, :-columns]
    )
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(top), int(left)


def _png(image: UInt8Image) -> str:
    """A data URI of an image, uint8 [H, W, 3], lossless."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"


def _bars(counts: Sequence[int]) -> str:
    """The outline of a histogram as an SVG path, a unit wide per bin, 16 units high at most.

    Heights are logarithmic: one integer shows beside a million.
    """
    full = math.log1p(max(counts))
    heights = [16 * math.log1p(count) / full for count in counts]
    steps = "".join(f"V{16 - height:.1f}h1" for height in heights)
    return f"M0 16{steps}V16Z"


def _percent(share: float) -> str:
    """Of 0..1; a share that is not 0 never reads as 0."""
    return "<0.01" if 0 < share < 0.0001 else f"{100 * share:.2f}"


def _size(width: int, height: int) -> str:
    return f"{width}{TIMES}{height}"


def _db(value: float) -> str:
    return f"{value:.2f}"


def _delta(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)
