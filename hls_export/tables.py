"""The record tables of a bundle, derived from a graph, an address plan and a chip's layout.

A writer stores them; a reader takes graph and plan out of them, derives them again and refuses a
difference: so no field of a bundle can disagree with another.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from hls_export import blobs
from hls_export.layer_table import (
    NO_VIEW,
    BufferRecord,
    ChannelRecord,
    LayerRecord,
    ModelRecord,
    MultiplierRecord,
    ViewRecord,
)
from hls_export.memory import Plan, bytes_per_cell
from quant import contract
from quant.integer_graph import IMAGE, Buffer, IntegerGraph, Layer, View

ARITHMETIC_IDS = {contract.ARITHMETIC: 1, contract.MULTIPLIER_ARITHMETIC: 2}
KIND_ACTIVATION, KIND_IMAGE = 0, 1
RELU, HAS_JOIN, HAS_OUTPUT = 1, 2, 4  # flags of a layer


@dataclass(frozen=True)
class Tables:
    """MODL, BUFS, LAYR, CHAN, MULT (no rows in a dyadic graph) and WGHT."""

    model: ModelRecord
    buffers: tuple[BufferRecord, ...]
    layers: tuple[LayerRecord, ...]
    channels: tuple[ChannelRecord, ...]
    multipliers: tuple[MultiplierRecord, ...]
    weights: bytes


def format_major(graph: IntegerGraph) -> int:
    """The lowest major version of the format that can say what a graph holds."""
    wide = graph.activation_bits > contract.ACTIVATION_BITS
    narrow = any(layer.weight_bits < contract.WEIGHT_BITS for layer in graph.layers)
    return 2 if wide or narrow or not graph.dyadic else 1


def channel_bytes(layer: Layer) -> int:
    """Bytes of the numbers of one output channel: rows of CHAN and, with multipliers, of MULT."""
    return ChannelRecord.SIZE + (0 if layer.multipliers is None else MultiplierRecord.SIZE)


def pack_strings(graph: IntegerGraph, chip_name: str) -> bytes:
    """STRS: NUL-terminated UTF-8; the empty string first, then each name once, by first use.

    Raises ValueError for a name that is empty, holds NUL or is no Unicode text.
    """
    buffers = (buffer.name for buffer in graph.buffers)
    layers = (layer.name for layer in graph.layers)
    pool = b"\0"
    for name in dict.fromkeys([graph.name, chip_name, *buffers, *layers]):
        try:
            encoded = name.encode("utf-8")
        except UnicodeEncodeError:
            encoded = b""
        if not encoded or b"\0" in encoded:
            raise ValueError(
                f"bundle: name must be UTF-8 text without NUL, not empty, got {name!r}"
            )
        pool += encoded + b"\0"
    return pool


def find_string(strings: bytes, name: str) -> int:
    """Offset of a name in STRS."""
    return strings.index(b"\0" + name.encode("utf-8") + b"\0") + 1


def read_string(strings: bytes, offset: int) -> str:
    """The name at an offset of STRS; raises ValueError when there is none."""
    if not 0 < offset < len(strings):
        raise ValueError(f"bundle: name must lie in 1..{len(strings) - 1} of STRS, got {offset}")
    try:
        return strings[offset : strings.index(b"\0", offset)].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"bundle: STRS must be UTF-8, got {error}") from error


def derive_tables(graph: IntegerGraph, plan: Plan, block: int, strings: bytes) -> Tables:
    """Every record of a graph; block: output lanes that weights are interleaved for."""
    streams = [blobs.to_stream(layer.weight, block) for layer in graph.layers]
    *offsets, weight_bytes = blobs.layer_offsets([len(stream) for stream in streams])
    weights = bytearray(weight_bytes)
    layers, row = [], 0
    for layer, stream, offset in zip(graph.layers, streams, offsets, strict=True):
        weights[offset : offset + len(stream)] = stream
        layers.append(_layer_record(graph, plan, layer, strings, row, offset, stream))
        row += layer.out_channels
    model = ModelRecord(
        levels=graph.levels,
        buffer_count=len(graph.buffers),
        layer_count=len(graph.layers),
        channel_count=row,
        channel_block=block,
        arena_bytes_per_cell=plan.arena,
        name=find_string(strings, graph.name),
        arithmetic=ARITHMETIC_IDS[graph.arithmetic],
        activation_bits=graph.activation_bits,
        weight_bits=graph.weight_bits,
        weight_bytes=weight_bytes,
    )
    return Tables(
        model,
        tuple(_buffer_record(graph, plan, buffer, strings) for buffer in graph.buffers),
        tuple(layers),
        tuple(_channel_records(graph)),
        tuple(_multiplier_records(graph)),
        bytes(weights),
    )


def _buffer_record(graph: IntegerGraph, plan: Plan, buffer: Buffer, strings: bytes) -> BufferRecord:
    image = buffer.name == IMAGE
    # The image is read by the head and again by the tail, which is the last layer.
    first, last = 0, len(graph.layers) - 1
    if not image:
        first, last = plan[buffer.name].first, plan[buffer.name].last
    return BufferRecord(
        name=find_string(strings, buffer.name),
        channels=buffer.channels,
        level=buffer.level,
        exponent=buffer.exponent,
        bits=buffer.bits,
        kind=KIND_IMAGE if image else KIND_ACTIVATION,
        address_per_cell=0 if image else plan[buffer.name].address,
        bytes_per_cell=bytes_per_cell(buffer, graph.levels),
        first_layer=first,
        last_layer=last,
    )


def _view_record(graph: IntegerGraph, plan: Plan, view: View | None) -> ViewRecord:
    if view is None:
        return NO_VIEW
    buffer = graph.buffer(view.buffer)
    return ViewRecord(
        buffer=graph.buffers.index(buffer),
        channel_offset=view.offset,
        channels=view.channels,
        pixel_stride=buffer.channels,
        address_per_cell=0 if buffer.name == IMAGE else plan[buffer.name].address,
        level=buffer.level,
        exponent=buffer.exponent,
    )


def _layer_record(
    graph: IntegerGraph,
    plan: Plan,
    layer: Layer,
    strings: bytes,
    row: int,
    offset: int,
    stream: bytes,
) -> LayerRecord:
    flags = (
        (RELU if layer.relu else 0)
        | (HAS_JOIN if layer.join is not None else 0)
        | (HAS_OUTPUT if layer.output is not None else 0)
    )
    return LayerRecord(
        name=find_string(strings, layer.name),
        op=int(layer.op),
        flags=flags,
        activation_bits=graph.buffer(layer.input.buffer).bits,
        weight_bits=layer.weight_bits,
        kernel=layer.op.kernel,
        stride=layer.op.stride,
        accumulator_bits=graph.accumulator_bits(layer),
        input=_view_record(graph, plan, layer.input),
        output=_view_record(graph, plan, layer.output),
        join=_view_record(graph, plan, layer.join),
        out_channels=layer.out_channels,
        in_channels=layer.input.channels,
        weight_offset=offset,
        weight_bytes=len(stream),
        channel_row=row,
        weight_crc32=zlib.crc32(stream),
        macs_per_cell=graph.macs(layer, graph.grid, graph.grid),
    )


def _channel_records(graph: IntegerGraph) -> Iterator[ChannelRecord]:
    for layer in graph.layers:
        if layer.multipliers is not None:
            yield from (ChannelRecord(bias, 0, 0, 0) for bias in layer.bias.tolist())
            continue
        numbers = (layer.bias, graph.shift(layer), graph.join_shift(layer), layer.weight_exponent)
        for row in zip(*(array.tolist() for array in numbers), strict=True):
            yield ChannelRecord(*row)


def _multiplier_records(graph: IntegerGraph) -> Iterator[MultiplierRecord]:
    for layer in graph.layers:
        if layer.multipliers is not None:
            for row in zip(*(array.tolist() for array in layer.multipliers), strict=True):
                yield MultiplierRecord(*row)
