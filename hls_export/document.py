"""A bundle as a JSON document, for people and toolchains, and the graph back out of it."""

import dataclasses
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hls_export import blobs
from hls_export.bundle import Bundle
from hls_export.layer_table import BufferRecord, LayerRecord, ViewRecord
from hls_export.tables import HAS_JOIN, HAS_OUTPUT, RELU
from quant import contract
from quant.contract import Op
from quant.integer_graph import Buffer, IntArray, IntegerGraph, Layer, Requantisation, View

CHANNEL_NUMBERS = ("bias", "shift", "join_shift", "weight_exponent")


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """Everything of a bundle but its weights, in JSON types; names in place of offsets.

    The records keep the field names of docs/FORMAT.md. Layers carry their channels' numbers as
    lists of out_channels entries; in multiplier arithmetic those of MULT stand under
    `multipliers`, and buffers have a `scale`.
    """
    return {
        "format": bundle.format,
        "arithmetic": bundle.graph().arithmetic,
        "arithmetic_version": contract.ARITHMETIC_VERSION,
        **bundle.graph().formulas,
        "model": _named(bundle, bundle.model),
        "chip": _named(bundle, bundle.chip),
        "buffers": [_buffer(bundle, buffer) for buffer in bundle.buffers],
        "layers": [_layer(bundle, layer) for layer in bundle.layers],
    }


def _named(bundle: Bundle, record: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(record), "name": bundle.text(record.name)}


def _buffer(bundle: Bundle, record: BufferRecord) -> dict[str, Any]:
    entry, graph = _named(bundle, record), bundle.graph()
    return entry if graph.dyadic else {**entry, "scale": graph.buffer(entry["name"]).scale}


def _layer(bundle: Bundle, record: LayerRecord) -> dict[str, Any]:
    def view(place: ViewRecord) -> dict[str, Any]:
        name = bundle.text(bundle.buffers[place.buffer].name)
        return {**dataclasses.asdict(place), "buffer": name}

    entry = _named(bundle, record)
    del entry["flags"]
    entry["op"] = Op(record.op).name
    entry["relu"] = bool(record.flags & RELU)
    entry["input"] = view(record.input)
    entry["output"] = view(record.output) if record.flags & HAS_OUTPUT else None
    entry["join"] = view(record.join) if record.flags & HAS_JOIN else None
    rows = bundle.channels[record.channel_row : record.channel_row + record.out_channels]
    entry.update({name: [getattr(row, name) for row in rows] for name in CHANNEL_NUMBERS})
    if bundle.multipliers:
        last = record.channel_row + record.out_channels
        numbers = bundle.multipliers[record.channel_row : last]
        entry["multipliers"] = {
            name: [getattr(row, name) for row in numbers] for name in Requantisation._fields
        }
    return entry


def to_json(document: Mapping[str, Any]) -> str:
    """Indented JSON with lists of numbers on one line each."""
    text = json.dumps(document, indent=1, allow_nan=False)
    flat = re.sub(r"\[\s+(-?\d[-\d,\s]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return flat + "\n"


def graph_from_document(document: Mapping[str, Any], weights: bytes) -> IntegerGraph:
    """The graph that was exported, from `bundle_document` and the bytes of WGHT.

    Raises ValueError when the two do not belong together or hold no valid graph.
    """
    try:
        version = document["arithmetic_version"]
        if version != contract.ARITHMETIC_VERSION:
            rule = f"be {contract.ARITHMETIC_VERSION}"
            raise ValueError(f"layers: arithmetic_version must {rule}, got {version!r}")
        return IntegerGraph(
            name=document["model"]["name"],
            levels=document["model"]["levels"],
            buffers=tuple(
                Buffer(
                    entry["name"],
                    entry["channels"],
                    entry["level"],
                    entry["exponent"],
                    entry["bits"],
                    entry.get("scale"),
                )
                for entry in document["buffers"]
            ),
            layers=tuple(_read_layers(document, weights)),
            arithmetic=document["arithmetic"],
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"layers: document must be one of an export, got {error!r}") from error


def _read_layers(document: Mapping[str, Any], weights: bytes) -> Iterator[Layer]:
    block = document["chip"]["channel_block"]

    def view(entry: Mapping[str, Any]) -> View:
        return View(entry["buffer"], entry["channel_offset"], entry["channels"])

    for entry in document["layers"]:
        name, start, size = entry["name"], entry["weight_offset"], entry["weight_bytes"]
        stream = weights[start : start + size]
        crc = zlib.crc32(stream)
        if crc != entry["weight_crc32"]:
            raise ValueError(
                f"layers: {name} weight_crc32 must be that of its weights, {crc}, "
                f"got {entry['weight_crc32']}"
            )
        op, source, bias = Op[entry["op"]], view(entry["input"]), _integers(entry, "bias")
        shape = (len(bias), source.channels, op.kernel, op.kernel)
        yield Layer(
            name=name,
            op=op,
            input=source,
            output=None if entry["output"] is None else view(entry["output"]),
            join=None if entry["join"] is None else view(entry["join"]),
            relu=entry["relu"],
            weight=blobs.from_stream(stream, shape, block, f"layer {name}"),
            weight_exponent=_integers(entry, "weight_exponent"),
            bias=bias,
            weight_bits=entry["weight_bits"],
            multipliers=_read_multipliers(entry),
        )


def _read_multipliers(entry: Mapping[str, Any]) -> Requantisation | None:
    if "multipliers" not in entry:
        return None
    numbers = {**entry["multipliers"], "name": entry["name"]}
    return Requantisation(*(_integers(numbers, name) for name in Requantisation._fields))


def _integers(entry: Mapping[str, Any], name: str) -> IntArray:
    values = entry[name]
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise TypeError(f"{name} of {entry['name']} is no list of integers")
    return np.array(values, np.int64)
