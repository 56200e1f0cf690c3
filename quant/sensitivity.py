"""What quantising each tensor alone costs, and bits under a budget: `python -m quant.sensitivity`.

Every activation buffer and every layer's weights are rounded alone, all else in float, and the loss
of PSNR is measured. From the table, `quant.allocation` chooses bits; the result is a precision file
that `python -m quant.qat --precision` takes. Beside `quant.qat` the one file of `quant` that may
import `hls_export`: a chip's cycles can be the budget.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from hls_export.cycles import layer_by_layer
from hls_export.export import FRAME
from hls_export.npu import Chip, load_chip
from quant import contract
from quant.allocation import (
    Bits,
    Kind,
    LayerCost,
    Losses,
    Place,
    Point,
    activations,
    allocate,
    as_precision,
    mac_bits,
)
from quant.calibration import Batch
from quant.convert import best_weight_exponent, convert
from quant.integer_graph import IMAGE, IntegerGraph
from quant.lower import lower
from quant.modules import QuantDenoisingNetwork, check_lowerable, weight_scale
from quant.precision import Precision
from quant.qat import whole_pixels
from quant.quality import CONDITIONS
from quant.topology import LayerShape, Topology, layer_shapes
from starlight.errors import OneLineErrors
from starlight.evaluation.photographs import held_out
from starlight.evaluation.suites import noisy_input
from starlight.files import check_folder, write_atomically, write_json
from starlight.models.checkpoint import load_network
from starlight.noise import NoiseCondition
from starlight.noise.training import TrainingNoise
from starlight.pages import house_style
from starlight.tables import markdown_table
from starlight.training.data import load_photographs, to_network
from starlight.training.mix import CHECK_STEPS, CleanSource, Mix

ACTIVATION_WIDTHS: Final = (8, 16)
WEIGHT_WIDTHS: Final = tuple(range(contract.WEIGHT_BITS_MIN, contract.WEIGHT_BITS + 1))
CALIBRATION_BATCHES: Final = 4
UInt8Image = npt.NDArray[np.uint8]
Images = Mapping[str, list[Batch]]
"""Condition -> (noisy, clean) of every photograph, each [1, 3, H, W] in the network's units."""


def images_of(
    photographs: Mapping[str, UInt8Image],
    conditions: Sequence[NoiseCondition],
    seed: int,
    grid: int,
) -> Images:
    """8-bit noisy images and clean ones, cut to whole cells of the network's grid.

    Raises ValueError for a photograph smaller than a cell.
    """

    def tensor(image: UInt8Image) -> Tensor:
        height, width = (size // grid * grid for size in image.shape[:2])
        planes = torch.from_numpy(image[:height, :width].astype(np.float32)).permute(2, 0, 1)
        return to_network(planes[None])

    for name, photograph in photographs.items():
        if min(photograph.shape[:2]) < grid:
            raise ValueError(
                f"sensitivity: {name} must be at least {grid} x {grid} pixels, "
                f"got {photograph.shape[0]} x {photograph.shape[1]}"
            )
    return {
        condition.name: [
            (tensor(noisy_input(clean, name, condition, seed=seed)), tensor(clean))
            for name, clean in photographs.items()
        ]
        for condition in conditions
    }


@contextmanager
def alone(quantised: QuantDenoisingNetwork, place: Place | None) -> Iterator[None]:
    """Within, that buffer or that layer's weights are quantised, all else is float."""
    convolutions = {
        shape.name: quantised.convolution(shape.name) for shape in layer_shapes(quantised.topology)
    }
    quantisers = dict(quantised.quantisers())
    with quantised.observing(lambda *_: None):
        try:
            if place is not None and place[0] == "activations":
                quantisers[place[1]].observer = None
            for name, convolution in convolutions.items():
                convolution.weight_quant.disable_quant = ("weights", name) != place
                convolution.bias_quant.disable_quant = True
            yield
        finally:
            for convolution in convolutions.values():
                convolution.weight_quant.disable_quant = False
                convolution.bias_quant.disable_quant = False


@torch.no_grad()
def psnr(quantised: QuantDenoisingNetwork, images: Images, place: Place | None) -> dict[str, float]:
    """Condition -> mean PSNR in dB of the unrounded output, with that place quantised alone."""
    quantised.train()  # the residual stays unrounded
    with alone(quantised, place):
        return {
            name: float(np.mean([_psnr(quantised(noisy), clean) for noisy, clean in pairs]))
            for name, pairs in images.items()
        }


def _psnr(output: Tensor, clean: Tensor) -> float:
    peak = contract.PIXEL_MAX / 2**contract.IMAGE_EXPONENT
    return float(20 * np.log10(peak) - 10 * torch.log10((output - clean).square().mean()))


def measure(networks: Mapping[int, QuantDenoisingNetwork], images: Images) -> list[dict[str, Any]]:
    """A row per tensor and width: dB lost alone, per condition, and their mean.

    networks: bits of all activations -> a network calibrated with them.
    """
    eight = networks[contract.ACTIVATION_BITS]
    exact = psnr(eight, images, None)
    buffers = [name for name, _ in eight.quantisers()]
    layers = [shape.name for shape in layer_shapes(eight.topology)]
    jobs: list[tuple[Place, int]] = [
        *((("activations", name), bits) for bits in networks for name in buffers),
        *((("weights", name), bits) for bits in WEIGHT_WIDTHS for name in layers),
    ]
    rows = []
    for place, bits in tqdm(jobs, desc="sensitivity", unit="tensor", mininterval=1.0):
        kind, name = place
        if kind == "weights":
            with weight_bits(eight, name, bits):
                found = psnr(eight, images, place)
        else:
            found = psnr(networks[bits], images, place)
        lost = {condition: exact[condition] - value for condition, value in found.items()}
        mean = float(np.mean(list(lost.values())))
        rows.append({"kind": kind, "name": name, "bits": bits, "mean": mean, **lost})
    return rows


@contextmanager
def weight_bits(quantised: QuantDenoisingNetwork, layer: str, bits: int) -> Iterator[None]:
    """Within, a layer's weights have that many bits and the best exponents for them."""
    convolution = quantised.convolution(layer)
    exponent = weight_scale(convolution).exponent
    kept, weight = exponent.clone(), convolution.weight.data
    limit = contract.weight_limit(bits)
    best = best_weight_exponent(weight, bits).view_as(exponent)
    try:
        with torch.no_grad():
            exponent.copy_(best)
            low, high = -limit * torch.exp2(-best), limit * torch.exp2(-best)
            convolution.weight.data = weight.clamp(low, high)
        yield
    finally:
        convolution.weight.data = weight
        with torch.no_grad():
            exponent.copy_(kept)


def losses_of(rows: Sequence[Mapping[str, Any]]) -> dict[Place, dict[int, float]]:
    """Place -> bits -> mean dB; never less than 0, nor less than with more bits."""
    losses: dict[Place, dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: -row["bits"]):
        widths = losses.setdefault((row["kind"], row["name"]), {})
        widths[row["bits"]] = max([row["mean"], 0.0, *widths.values()])
    return losses


def no_losses(quantised: QuantDenoisingNetwork) -> Losses:
    """Every place at every width for nothing: what a budget must at least pay shows at once."""
    return {
        **{
            ("activations", n): dict.fromkeys(ACTIVATION_WIDTHS, 0.0)
            for n, _ in quantised.quantisers()
        },
        **{
            ("weights", shape.name): dict.fromkeys(WEIGHT_WIDTHS, 0.0)
            for shape in layer_shapes(quantised.topology)
        },
    }


def mac_bits_cost(graph: IntegerGraph) -> LayerCost:
    macs = {layer.name: graph.macs(layer, *FRAME) for layer in graph.layers}
    return lambda shape, bits: mac_bits(shape, bits, macs)


def chip_cost(graph: IntegerGraph, chip: Chip) -> LayerCost:
    """Cycles of a layer on the chip, layer by layer on one frame."""
    index = {layer.name: place for place, layer in enumerate(graph.layers)}

    @cache
    def cycles(layer: str, weights: int, buffers: tuple[tuple[str, int], ...]) -> float:
        widths: dict[Place, int] = {("weights", layer): weights}
        widths.update({("activations", name): bits for name, bits in buffers})
        cost = layer_by_layer(with_bits(graph, widths), chip, *FRAME)
        return float(cost.phases[index[layer]].cycles)

    def cost(shape: LayerShape, bits: Bits) -> float:
        views = (shape.input, shape.output, shape.join)
        names = {view.buffer for view in views if view is not None} - {IMAGE}
        buffers = tuple((name, activations(bits, name)) for name in sorted(names))
        return cycles(shape.name, bits["weights", shape.name], buffers)

    return cost


def with_bits(graph: IntegerGraph, bits: Bits) -> IntegerGraph:
    """The graph with other widths; its weights are cut to fit, so it stands for costs alone."""
    return replace(
        graph,
        buffers=tuple(
            replace(buffer, bits=activations(bits, buffer.name)) for buffer in graph.buffers
        ),
        layers=tuple(
            replace(
                layer,
                weight=np.sign(layer.weight).astype(np.int8),
                weight_bits=bits.get(("weights", layer.name), layer.weight_bits),
            )
            for layer in graph.layers
        ),
    )


def widths_of(chip: Chip | None) -> dict[Kind, set[int]]:
    """Bits that may be chosen."""
    if chip is None:
        return {"activations": set(ACTIVATION_WIDTHS), "weights": set(WEIGHT_WIDTHS)}
    capability = chip.capability
    return {"activations": set(capability.activation_bits), "weights": set(capability.weight_bits)}


def choose(
    topology: Topology, losses: Losses, graph: IntegerGraph, chip: Chip | None, budget: float
) -> tuple[list[Point], float]:
    """The allocation's path, and what 8 bits everywhere cost; budget: a multiple of that."""
    cost = mac_bits_cost(graph) if chip is None else chip_cost(graph, chip)
    allowed = widths_of(chip)
    losses = {
        place: {bits: loss for bits, loss in widths.items() if bits in allowed[place[0]]}
        for place, widths in losses.items()
    }
    eight = dict.fromkeys(losses, contract.ACTIVATION_BITS)
    whole = sum(cost(shape, eight) for shape in layer_shapes(topology))
    return allocate(topology, losses, cost, budget * whole), whole


def picture(rows: Sequence[Mapping[str, Any]], path: Sequence[Point], whole: float) -> bytes:
    """PNG: loss of each tensor alone, and the allocation's curve where there is one."""
    eight = [row for row in rows if row["kind"] == "activations" and row["bits"] == 8]
    weights = {
        bits: [row for row in rows if row["kind"] == "weights" and row["bits"] == bits]
        for bits in WEIGHT_WIDTHS
    }
    with house_style():
        figure = Figure(figsize=(9, 13 if path else 10), layout="constrained")
        heights = [len(eight), len(weights[8]), 14][: 3 if path else 2]
        axes = figure.subplots(len(heights), 1, height_ratios=heights)
        names = [row["name"] for row in eight]
        axes[0].barh(names, [row["mean"] for row in eight], color="#d98511")
        axes[0].set_title("int8 activations, each buffer alone")
        for bits, marker in ((8, "o"), (6, "s"), (5, "D"), (4, "^")):
            shown = [max(row["mean"], 1e-5) for row in weights[bits]]
            names = [row["name"] for row in weights[bits]]
            axes[1].plot(shown, names, marker, markersize=4, label=f"{bits} bits")
        axes[1].set_xscale("log")
        axes[1].set_title("weights, each layer alone")
        axes[1].legend()
        for part in axes[:2]:
            part.invert_yaxis()
            part.tick_params(axis="y", labelsize=7)
            part.set_xlabel("dB lost, mean over conditions")
        if path:
            relative = [point.cost / whole for point in path]
            axes[2].plot(relative, [point.loss for point in path], color="#1e9e74")
            axes[2].set_yscale("log")
            axes[2].set_xlabel("cost, 1: 8 bits everywhere")
            axes[2].set_ylabel("dB lost, foreseen")
            axes[2].set_title("allocation from the least bits upward")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


def table_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def precision_toml(precision: Precision) -> bytes:
    lines = []
    for table in ("activation_bits", "weight_bits"):
        lines += [f"[{table}]", *(f'"{n}" = {w}' for n, w in getattr(precision, table).items())]
    return ("\n".join(lines) + "\n").encode()


def show(rows: Sequence[Mapping[str, Any]], most: int = 12) -> str:
    """The tensors that cost most at 8 bits."""
    conditions = list(rows[0])[4:]
    worst = sorted((row for row in rows if row["bits"] == 8), key=lambda row: -row["mean"])
    cells = [
        [row["name"], row["kind"], *(f"{row[name]:.3f}" for name in ("mean", *conditions))]
        for row in worst[:most]
    ]
    return markdown_table(("dB lost alone, 8 bits", "of", "mean", *conditions), cells)


_path = click.Path(path_type=Path)


@click.command(cls=OneLineErrors)
@click.option("--weights", default="edge", show_default=True, help="Shipped preset or a file.")
@click.option("--out", type=_path, help="Folder.  [default: runs/sensitivity-<weights>]")
@click.option("--data", type=_path, multiple=True, help="Photographs to calibrate with.")
@click.option("--evaluation", type=_path, help="Folder of images to measure on.")
@click.option("--limit", type=click.IntRange(1), help="Use that many of them.")
@click.option("--crop", type=click.IntRange(32), default=128, show_default=True)
@click.option("--patch", type=click.IntRange(32), default=96, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    help="Choose bits; cost over that of 8 bits everywhere.",
)
@click.option(
    "--chip", help="Count its cycles, layer by layer at 1920x1080.  [default: MACs x bits]"
)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch.")
@click.option("--json", "json_file", type=_path, help="Write the figures there too.")
def main(
    weights: str,
    out: Path | None,
    data: tuple[Path, ...],
    evaluation: Path | None,
    limit: int | None,
    crop: int,
    patch: int,
    batch: int,
    budget: float | None,
    chip: str | None,
    seed: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """What quantising each tensor alone costs in dB; with --budget, a precision file."""
    if threads is not None:
        torch.set_num_threads(threads)
    if json_file is not None:
        check_folder(json_file)
    loaded = None if chip is None else load_chip(chip)
    network = load_network(weights)
    check_lowerable(network.config)
    images = images_of(held_out(evaluation, limit, crop), CONDITIONS, seed, network.config.grid)
    source = CleanSource(load_photographs(data), TrainingNoise(u8_fraction=1.0))
    mix = Mix([(source, 1.0)], batch, patch, seed)
    calibration = [
        whole_pixels(mix.batch(CHECK_STEPS + index)) for index in range(CALIBRATION_BATCHES)
    ]
    networks = {
        bits: convert(network, calibration, Precision(activation_bits={"*": bits}))
        for bits in ACTIVATION_WIDTHS
    }
    topology, graph = networks[8].topology, lower(networks[8], Path(weights).stem)
    if budget is not None:
        choose(topology, no_losses(networks[8]), graph, loaded, budget)  # refuses before the work
    folder = out or Path("runs") / f"sensitivity-{Path(weights).stem}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = measure(networks, images)
    figures: dict[str, Any] = {"weights": weights, "seed": seed, "crop": crop, "rows": rows}
    path: list[Point] = []
    whole = 1.0
    if budget is not None:
        path, whole = choose(topology, losses_of(rows), graph, loaded, budget)
        precision = as_precision(path[-1].bits)
        write_atomically(folder / "precision.toml", precision_toml(precision))
        found = psnr_lost(convert(network, calibration, precision), networks[8], images)
        figures["allocation"] = {
            "budget": budget,
            "unit": "MACs x bits / 64" if loaded is None else f"cycles of {loaded.name}",
            "cost": path[-1].cost / whole,
            "foreseen": path[-1].loss,
            "measured": found,
            "path": [{"cost": point.cost / whole, "loss": point.loss} for point in path],
            "precision": precision.model_dump(),
        }
    write_atomically(folder / "sensitivity.csv", table_csv(rows))
    write_atomically(folder / "sensitivity.png", picture(rows, path, whole))
    write_json(folder / "sensitivity.json", figures)
    if json_file is not None:
        write_json(json_file, figures)
    click.echo(show(rows))
    if budget is not None:
        click.echo(
            f"allocation: {path[-1].cost / whole:.3f} of the cost of 8 bits everywhere, "
            f"{path[-1].loss:.3f} dB foreseen, {np.mean(list(found.values())):.3f} dB measured, "
            f"before training"
        )
        click.echo(f"precision:  {folder / 'precision.toml'}")
    click.echo(f"table:      {folder / 'sensitivity.csv'}, sensitivity.json, sensitivity.png")


@torch.no_grad()
def psnr_lost(
    quantised: QuantDenoisingNetwork, exact: QuantDenoisingNetwork, images: Images
) -> dict[str, float]:
    """Condition -> dB that everything quantised together costs, outputs unrounded."""
    float_psnr = psnr(exact, images, None)
    quantised.train()
    return {
        name: float_psnr[name] - float(np.mean([_psnr(quantised(n), c) for n, c in pairs]))
        for name, pairs in images.items()
    }


if __name__ == "__main__":
    main()
