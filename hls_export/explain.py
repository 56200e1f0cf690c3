"""One layer from end to end: the PyTorch module, its record, its addresses, its cycles."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hls_export.bundle import Bundle, read_bundle
from hls_export.compression import weight_gain
from hls_export.costs import chip_of, frame_costs
from hls_export.cycles import FrameCost
from hls_export.document import bundle_document
from hls_export.export import slice_text
from hls_export.layer_table import ChannelRecord, LayerRecord
from hls_export.memory import cells, level_size
from hls_export.options import PATH, chip_option, frame_option, json_option
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View
from starlight.files import write_json

SIDES = ("input", "join", "output")


def module_paths(layer: str, op: Op) -> dict[str, str]:
    """Where a layer's weights live in PyTorch: class of a network -> the submodule's path.

    A layer is named after its submodule of the quantised network.
    """
    return {
        "starlight.models.denoiser.DenoisingNetwork": f"{layer}.conv" if op is Op.UP else layer,
        "quant.modules.QuantDenoisingNetwork": layer,
    }


def explain(
    bundle: Bundle, name: str, schedules: Mapping[str, FrameCost], frame: tuple[int, int]
) -> dict[str, Any]:
    """Everything about one layer in JSON types.

    schedules: title -> costs of a frame. frame: its height, width in pixels. Raises ValueError when
    there is no such layer.
    """
    graph = bundle.graph()
    names = [layer.name for layer in graph.layers]
    if name not in names:
        raise ValueError(f"explain: layer must be one of {', '.join(names)}, got {name!r}")
    index = names.index(name)
    layer, record = graph.layers[index], bundle.layers[index]
    entry = bundle_document(bundle)["layers"][index]
    starts = {section.kind: section.offset for section in bundle.sections}
    return {
        "layer": name,
        "index": index,
        "modules": module_paths(name, layer.op),
        "convolution": _convolution(layer),
        "op": layer.op.name,
        "relu": layer.relu,
        "accumulator_bits": record.accumulator_bits,
        "exponents": {side: entry[side]["exponent"] for side in SIDES if entry[side] is not None},
        "ranges": {title: [min(row), max(row)] for title, row in _numbers(entry).items()},
        "file": {
            "record": [starts["LAYR"] + index * LayerRecord.SIZE, LayerRecord.SIZE],
            "channels": [
                starts["CHAN"] + record.channel_row * ChannelRecord.SIZE,
                record.out_channels * ChannelRecord.SIZE,
            ],
            "weights": [starts["WGHT"] + record.weight_offset, record.weight_bytes],
        },
        "weight_crc32": record.weight_crc32,
        "compressed_weights": weight_gain(bundle)["layers"][name],
        "operands": {
            side: {
                "view": slice_text(entry[side]),
                "with": _partners(graph, layer, side),
                **_address(bundle, entry[side], frame),
            }
            for side in SIDES
            if entry[side] is not None
        },
        "frame": {"width": frame[1], "height": frame[0]},
        "costs": [
            {
                "schedule": title,
                **asdict(cost),
                "cycles": cost.cycles,
                "phase": number,
                "phase_layers": [each.layer for each in phase.layers],
                "tiles": sum(step.count for step in phase.steps),
            }
            for title, schedule in schedules.items()
            for number, phase in enumerate(schedule.phases)
            for cost in phase.layers
            if cost.layer == name
        ],
    }


def _numbers(entry: Mapping[str, Any]) -> dict[str, list[int]]:
    """A layer's numbers per channel, those of its arithmetic."""
    if "multipliers" in entry:
        return {**entry["multipliers"], "bias": entry["bias"]}
    return {title: entry[title] for title in ("weight_exponent", "shift", "join_shift", "bias")}


def _convolution(layer: Layer) -> str:
    outputs, inputs, kernel, _ = layer.weight.shape
    stride = f", stride={layer.op.stride}" if layer.op.stride > 1 else ""
    padding = f", padding={kernel // 2}" if kernel > 1 else ""
    return f"Conv2d({inputs}, {outputs}, {kernel}{stride}{padding})"


def _partners(graph: IntegerGraph, layer: Layer, side: str) -> list[str]:
    """Layers that wrote what this one reads, or that read what it writes."""
    mine: View = getattr(layer, side)
    sides = ("input", "join") if side == "output" else ("output",)
    found = [
        other.name
        for other in graph.layers
        if any(_meet(getattr(other, theirs), mine) for theirs in sides)
    ]
    return found or [IMAGE]


def _meet(one: View | None, other: View) -> bool:
    return (
        one is not None
        and one.buffer == other.buffer
        and one.offset < other.end
        and other.offset < one.end
    )


def _address(bundle: Bundle, view: Mapping[str, Any], frame: tuple[int, int]) -> dict[str, Any]:
    """Where the first value of a view lies in the arena of a frame; the image lies outside."""
    if view["buffer"] == IMAGE:
        return {}
    levels = bundle.model.levels
    first = view["address_per_cell"] * cells(levels, *frame) + view["channel_offset"]
    _, columns = level_size(levels, *frame, view["level"])
    return {
        "address": first,
        "pixel_stride": view["pixel_stride"],
        "row_stride": columns * view["pixel_stride"],
    }


def render(found: Mapping[str, Any]) -> str:
    """`explain` as text, a line per fact."""
    return "\n".join(_lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"layer    {found['index']} {found['layer']}"
    for network, module in found["modules"].items():
        yield f"module   {module} of {network}"
    relu = ", ReLU" if found["relu"] else ""
    yield f"         {found['convolution']}, {found['op']}{relu}"
    for title, (start, size) in found["file"].items():
        yield f"{title:8} bytes {start:#x}..{start + size:#x} of the bundle"
    yield f"         weights' crc32 {found['weight_crc32']:08x}"
    gain = found["compressed_weights"]
    share = gain["compressed_bytes"] / gain["plain_bytes"]
    yield (
        f"         compressed {gain['compressed_bytes']} bytes, {100 * share:.1f} %, with k = "
        f"{gain['k']}"
    )
    exponents = ", ".join(f"{side} {value}" for side, value in found["exponents"].items())
    ranges = ", ".join(f"{name} {low}..{high}" for name, (low, high) in found["ranges"].items())
    yield f"numbers  exponents: {exponents}; {ranges}"
    yield f"         sums need {found['accumulator_bits']} bits"
    frame = found["frame"]
    for side, operand in found["operands"].items():
        way = "to" if side == "output" else "from"
        yield f"{side:8} {operand['view']}, {way} {', '.join(operand['with'])}"
        if "address" in operand:
            yield (
                f"         at byte {operand['address']} of the arena of {frame['width']}x"
                f"{frame['height']}, {operand['pixel_stride']} bytes to the next pixel, "
                f"{operand['row_stride']} to the next row"
            )
    for cost in found["costs"]:
        traffic = cost["traffic"]
        yield (
            f"cycles   {cost['schedule']}: {cost['cycles']} = compute {cost['compute_cycles']} "
            f"+ stall {cost['stall_cycles']}; DMA {cost['dma_cycles']}"
        )
        first, last = cost["phase_layers"][0], cost["phase_layers"][-1]
        together = first if first == last else f"{first} to {last}"
        yield f"         phase {cost['phase']}, {together}, tiles: {cost['tiles']}"
        yield (
            f"         {cost['macs']} MAC, DRAM {traffic['dram_read']} bytes read, "
            f"{traffic['dram_write']} written, {1e3 * sum(cost['energy'].values()):.3f} mJ"
        )


@click.command("explain")
@click.argument("bundle", type=PATH)
@click.argument("layer")
@chip_option
@frame_option("explain", "Of the addresses and cycles.")
@json_option("what is shown")
def explain_command(
    bundle: Path, layer: str, chip: str | None, frame: tuple[int, int], json_file: Path | None
) -> None:
    """Follow LAYER of a BUNDLE from its PyTorch module to record, addresses and cycles."""
    opened = read_bundle(bundle)
    found = explain(
        opened,
        layer,
        frame_costs(opened.graph(), chip_of(opened, chip), *frame, opened.stripes),
        frame,
    )
    click.echo(render(found))
    if json_file is not None:
        write_json(json_file, found)
