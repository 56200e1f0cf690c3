"""The bundle: one file that a chip runs and that gives its IntegerGraph back.

What a graph, a chip and an address plan say once is written; all else in the records is derived
from it, and a reader derives it again and refuses a difference. docs/FORMAT.md is the description.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hls_export import blobs, container
from hls_export.layer_table import (
    NO_VIEW,
    ROWS_MAX,
    BufferRecord,
    ChannelRecord,
    ChipRecord,
    LayerRecord,
    ModelRecord,
    MultiplierRecord,
    Record,
    ViewRecord,
    differing_field,
    pack_table,
    unpack_table,
)
from hls_export.memory import Allocation, Plan, bytes_per_cell, check_plan, lifetimes, plan_memory
from hls_export.npu import ACCUMULATOR_BITS_RANGE, LAYOUT_MAX, Chip, check_fits
from hls_export.plan import StripePlan
from hls_export.plan_check import check_stripes
from hls_export.plan_section import pack_plan, unpack_plan
from hls_export.tables import (
    ARITHMETIC_IDS,
    HAS_JOIN,
    HAS_OUTPUT,
    RELU,
    Tables,
    derive_tables,
    find_string,
    format_major,
    pack_strings,
    read_string,
)
from hls_export.vectors import Vectors, make_vectors, pack_vectors, unpack_vectors
from quant import contract
from quant.contract import Op
from quant.integer_graph import (
    IMAGE,
    Buffer,
    IntArray,
    IntegerGraph,
    Layer,
    Requantisation,
    View,
)
from quant.topology import LayerShape
from starlight import __version__
from starlight.files import write_atomically

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that has passed every check; records as they lie in the file."""

    sections: tuple[container.Section, ...]
    model: ModelRecord
    chip: ChipRecord
    buffers: tuple[BufferRecord, ...]
    layers: tuple[LayerRecord, ...]
    channels: tuple[ChannelRecord, ...]
    multipliers: tuple[MultiplierRecord, ...]
    strings: bytes
    weights: bytes
    vectors: Vectors
    meta: dict[str, Any]
    plan: Plan
    stripes: StripePlan | None
    _graph: IntegerGraph

    def graph(self) -> IntegerGraph:
        """The graph that was exported."""
        return self._graph

    @property
    def format(self) -> str:
        """major.minor: the lowest that can say what the bundle holds."""
        major = format_major(self._graph)
        minor = container.format_minor(major, (section.kind for section in self.sections))
        return f"{major}.{minor}"

    def text(self, offset: int) -> str:
        """The string at an offset of STRS."""
        return read_string(self.strings, offset)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        last = self.sections[-1]
        end = last.offset + len(last.data)
        return -(-end // container.ALIGNMENT) * container.ALIGNMENT + container.TRAILER


def pack_bundle(graph: IntegerGraph, chip: Chip, stripes: StripePlan | None = None) -> bytes:
    """The bytes of a bundle, the same for the same graph and capability on every machine.

    stripes: the stripe plan of section PLAN, proven here; without one a bundle runs whole frames.

    Raises ValueError when the chip cannot run the graph or the format cannot hold it.
    """
    check_fits(graph, chip)
    capability = chip.capability
    plan = plan_memory(graph, capability.alignment)
    strings = pack_strings(graph, chip.name)
    chip_record = ChipRecord(
        name=find_string(strings, chip.name),
        channel_block=capability.channel_block,
        alignment=capability.alignment,
        accumulator_bits=capability.accumulator_bits,
        max_width=capability.max_width,
        max_height=capability.max_height,
        capability_crc32=capability.crc32,
    )
    tables = derive_tables(graph, plan, capability.channel_block, strings)
    contents = {
        "MODL": tables.model.pack(),
        "CHIP": chip_record.pack(),
        "STRS": strings,
        "BUFS": pack_table(tables.buffers),
        "LAYR": pack_table(tables.layers),
        "CHAN": pack_table(tables.channels),
        "MULT": pack_table(tables.multipliers),
        "WGHT": tables.weights,
        "VECT": pack_vectors(make_vectors(graph, capability.max_height, capability.max_width)),
        "META": _meta(graph),
    }
    if graph.dyadic:
        del contents["MULT"]
    if stripes is not None:
        frame = graph.grid, graph.grid
        check_stripes(graph, stripes, chip.performance.sram_bytes, capability.channel_block, frame)
        contents["PLAN"] = pack_plan(graph, stripes)
    return container.pack_container(
        [(kind, container.is_required(kind), data) for kind, data in contents.items()],
        format_major(graph),
    )


def write_bundle(graph: IntegerGraph, chip: Chip, path: str | os.PathLike[str]) -> None:
    """Write `pack_bundle` to a file, atomically."""
    write_atomically(path, pack_bundle(graph, chip))


def read_bundle(source: str | os.PathLike[str] | bytes) -> Bundle:
    """Read and check a bundle from a path or from its bytes.

    Raises ValueError naming what does not hold, FileNotFoundError when there is no such file.
    """
    if isinstance(source, bytes):
        return _parse(source)
    data = load_bytes(source)
    try:
        return _parse(data)
    except ValueError as error:
        raise ValueError(f"{os.fspath(source)}: {error}") from error


def load_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a bundle, unchecked; raises FileNotFoundError when there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"bundle: file must exist, got {os.fspath(path)!r}")
    return Path(path).read_bytes()


def _meta(graph: IntegerGraph) -> bytes:
    wide = graph.activation_bits > contract.ACTIVATION_BITS
    scale = "2^-exponent" if graph.dyadic else "scales[buffer]"
    document: dict[str, Any] = {
        "activation": f"int8{' or int16' if wide else ''} [height, width, channel], "
        f"value = q * {scale}",
        "generator": f"starlight {__version__}",
        "image": "uint8 RGB [height, width, 3]; q = pixel - 128; padded right and bottom by "
        "replication",
        **graph.formulas,
    }
    if not graph.dyadic:
        document["scales"] = {buffer.name: buffer.scale for buffer in graph.buffers}
    return json.dumps(document, sort_keys=True, indent=1).encode("ascii")


# Reading: what was written gives the graph and the plan, and these give all the rest.


def _parse(data: bytes) -> Bundle:
    sections = container.read_container(data)
    content = {section.kind: section.data for section in sections}
    model = _one(ModelRecord, content["MODL"], "MODL")
    chip = _one(ChipRecord, content["CHIP"], "CHIP")
    _check_rows(content)
    buffers = unpack_table(BufferRecord, content["BUFS"], "BUFS")
    layers = unpack_table(LayerRecord, content["LAYR"], "LAYR")
    channels = unpack_table(ChannelRecord, content["CHAN"], "CHAN")
    multipliers = unpack_table(MultiplierRecord, content.get("MULT", b""), "MULT")
    strings, weights = content["STRS"], content["WGHT"]
    meta = _read_meta(content.get("META"))
    _check_model(model, chip, strings)
    present = "MULT" in content
    _require(
        present == (model.arithmetic == ARITHMETIC_IDS[contract.MULTIPLIER_ARITHMETIC]),
        "section MULT",
        "occur in multiplier arithmetic alone, and there",
        "one" if present else "none",
    )
    tables = Tables(model, buffers, layers, channels, multipliers, weights)
    graph = _read_graph(tables, chip, strings, meta)
    major, least = container.read_header(data).format_major, format_major(graph)
    _require(major >= least, "format version", f"be {least}.x for what it holds", major)
    plan = _read_plan(graph, model, chip, buffers)
    _require(
        strings == pack_strings(graph, read_string(strings, chip.name)),
        "STRS",
        "hold the names of model, chip, buffers and layers, each once by first use",
        f"{len(strings)} other bytes",
    )
    for layer in graph.layers:
        bits = graph.accumulator_bits(layer)
        limit = chip.accumulator_bits
        _require(bits <= limit, f"layer {layer.name} accumulator bits", f"be at most {limit}", bits)
    derived = derive_tables(graph, plan, chip.channel_block, strings)
    _compare((model,), (derived.model,), "MODL")
    _compare(buffers, derived.buffers, "BUFS")
    _compare(layers, derived.layers, "LAYR")
    _compare(channels, derived.channels, "CHAN")
    _compare(multipliers, derived.multipliers, "MULT")
    _require(weights == derived.weights, "WGHT padding", "be zero", "others")
    vectors = unpack_vectors(content["VECT"], len(layers))
    height, width, _ = vectors.input.shape
    _require(
        height <= chip.max_height and width <= chip.max_width,
        "VECT frame",
        f"fit the chip's {chip.max_width}x{chip.max_height}",
        f"{width}x{height}",
    )
    return Bundle(
        sections,
        model,
        chip,
        buffers,
        layers,
        channels,
        multipliers,
        strings,
        weights,
        vectors,
        meta,
        plan,
        _read_stripes(graph, chip, content.get("PLAN")),
        graph,
    )


def _one(record: type[R], data: bytes, what: str) -> R:
    _require(len(data) == record.SIZE, f"{what} size", f"be {record.SIZE}", len(data))
    return record.unpack(data, what)


def _compare(got: Sequence[Record], expected: Sequence[Record], what: str) -> None:
    _require(len(got) == len(expected), f"{what} rows", f"be {len(expected)}", len(got))
    for index, (mine, derived) in enumerate(zip(got, expected, strict=True)):
        if mine != derived:
            path = differing_field(mine, derived)
            _require(False, f"{what}[{index}] {path}", f"be {_at(derived, path)}", _at(mine, path))


def _at(record: Record, path: str) -> Any:
    value: Any = record
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _check_rows(content: Mapping[str, bytes]) -> None:
    """No more rows than a reader takes, before one of them is read."""
    for kind, record in (("BUFS", BufferRecord), ("LAYR", LayerRecord)):
        rows = len(content[kind]) // record.SIZE
        _require(rows <= ROWS_MAX, f"{kind} rows", f"be at most {ROWS_MAX}", rows)


def _check_model(model: ModelRecord, chip: ChipRecord, strings: bytes) -> None:
    known = sorted(ARITHMETIC_IDS.values())
    _require(model.arithmetic in known, "MODL arithmetic", f"be among {known}", model.arithmetic)
    for name in ("channel_block", "alignment"):
        value = getattr(chip, name)
        _require(
            1 <= value <= LAYOUT_MAX and value & (value - 1) == 0,
            f"CHIP {name}",
            f"be a power of two up to {LAYOUT_MAX}",
            value,
        )
    bits = chip.accumulator_bits
    low, high = ACCUMULATOR_BITS_RANGE
    _require(low <= bits <= high, "CHIP accumulator_bits", f"be in {low}..{high}", bits)
    for name in ("max_width", "max_height"):
        _require(getattr(chip, name) >= 1, f"CHIP {name}", "be at least 1", getattr(chip, name))
    framed = strings[:1] == b"\0" and strings[-1:] == b"\0"
    _require(framed, "STRS", "begin and end with NUL", strings[:1] + strings[-1:])


def _read_graph(
    tables: Tables, chip: ChipRecord, strings: bytes, meta: Mapping[str, Any]
) -> IntegerGraph:
    names = [read_string(strings, buffer.name) for buffer in tables.buffers]
    value_bytes = max((buffer.bits // 8 for buffer in tables.buffers), default=1)
    _require(
        chip.alignment >= value_bytes,
        "CHIP alignment",
        f"be at least {value_bytes} for values of {value_bytes} bytes",
        chip.alignment,
    )
    shapes = [
        _read_shape(f"LAYR[{index}]", layer, read_string(strings, layer.name), names)
        for index, layer in enumerate(tables.layers)
    ]
    arithmetic = next(
        name for name, number in ARITHMETIC_IDS.items() if number == tables.model.arithmetic
    )
    dyadic = arithmetic == contract.ARITHMETIC
    scales = {} if dyadic else _read_scales(meta, names)
    take = _weights_reader(shapes, chip.channel_block, tables.weights)
    taken, row = [], 0
    for index, shape in enumerate(shapes):
        count = shape.weight_shape[0]
        rows = tables.channels[row : row + count]
        multipliers = tables.multipliers[row : row + count]
        row += count
        _require(len(rows) == count, "CHAN rows", f"be at least {row}", len(tables.channels))
        if not dyadic:
            found = len(tables.multipliers)
            _require(len(multipliers) == count, "MULT rows", f"be at least {row}", found)
        bits = tables.layers[index].weight_bits
        taken.append(_read_layer(shape, take(index), rows, bits, None if dyadic else multipliers))
    try:
        return IntegerGraph(
            name=read_string(strings, tables.model.name),
            levels=tables.model.levels,
            buffers=tuple(
                Buffer(
                    name,
                    record.channels,
                    record.level,
                    record.exponent,
                    record.bits,
                    scales.get(name),
                )
                for name, record in zip(names, tables.buffers, strict=True)
            ),
            layers=tuple(taken),
            arithmetic=arithmetic,
        )
    except ValueError as error:
        raise ValueError(f"bundle: {error}") from error


def _read_shape(what: str, record: LayerRecord, name: str, buffers: Sequence[str]) -> LayerShape:
    _require(record.op in Op._value2member_map_, f"{what} op", "be a known id", record.op)

    def view(field: str, present: bool) -> View | None:
        place: ViewRecord = getattr(record, field)
        if not present:
            _require(place == NO_VIEW, f"{what} {field}", "be zero when absent", place)
            return None
        _require(
            place.buffer < len(buffers),
            f"{what} {field}.buffer",
            f"be below {len(buffers)}",
            place.buffer,
        )
        _require(place.channels >= 1, f"{what} {field}.channels", "be at least 1", place.channels)
        return View(buffers[place.buffer], place.channel_offset, place.channels)

    source = view("input", present=True)
    assert source is not None
    output = view("output", bool(record.flags & HAS_OUTPUT))
    _require(
        (output is None) == (record.op == Op.TAIL),
        f"{what} flags",
        "have bit 2, an output, in every layer but the tail",
        record.flags,
    )
    return LayerShape(
        name,
        Op(record.op),
        source,
        output,
        view("join", bool(record.flags & HAS_JOIN)),
        bool(record.flags & RELU),
    )


def _weights_reader(
    shapes: Sequence[LayerShape], block: int, weights: bytes
) -> Callable[[int], IntArray]:
    sizes = [blobs.stream_bytes(shape.weight_shape, block) for shape in shapes]
    offsets = blobs.layer_offsets(sizes)
    _require(len(weights) == offsets[-1], "WGHT size", f"be {offsets[-1]}", len(weights))

    def take(index: int) -> IntArray:
        start = offsets[index]
        data = weights[start : start + sizes[index]]
        shape = shapes[index]
        return blobs.from_stream(data, shape.weight_shape, block, f"layer {shape.name}")

    return take


def _read_plan(
    graph: IntegerGraph, model: ModelRecord, chip: ChipRecord, buffers: Sequence[BufferRecord]
) -> Plan:
    try:
        spans = lifetimes(graph)
        plan = Plan(
            chip.alignment,
            model.arena_bytes_per_cell,
            tuple(
                Allocation(
                    buffer.name,
                    record.address_per_cell,
                    bytes_per_cell(buffer, graph.levels),
                    *spans[buffer.name],
                )
                for buffer, record in zip(graph.buffers, buffers, strict=True)
                if buffer.name != IMAGE
            ),
        )
        check_plan(graph, plan)
    except ValueError as error:
        raise ValueError(f"bundle: {error}") from error
    return plan


def _read_stripes(graph: IntegerGraph, chip: ChipRecord, data: bytes | None) -> StripePlan | None:
    if data is None:
        return None
    stripes = unpack_plan(graph, data)
    alignment = chip.alignment
    _require(stripes.alignment == alignment, "PLAN alignment", f"be {alignment}", stripes.alignment)
    check_stripes(graph, stripes, stripes.sram, chip.channel_block, (graph.grid, graph.grid))
    return stripes


def _read_scales(meta: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """META's scales of the buffers: none, or for people a number each."""
    scales = meta.get("scales", {})
    numbers = isinstance(scales, dict) and all(type(value) is float for value in scales.values())
    _require(
        numbers and set(scales) in (set(), set(names)),
        "META scales",
        "give each buffer a real number",
        scales,
    )
    return dict(scales)


def _read_layer(
    shape: LayerShape,
    weight: IntArray,
    channels: Sequence[ChannelRecord],
    weight_bits: int,
    multipliers: Sequence[MultiplierRecord] | None,
) -> Layer:
    columns = ([getattr(row, name) for row in multipliers or ()] for name in Requantisation._fields)
    return Layer(
        shape.name,
        shape.op,
        shape.input,
        shape.output,
        shape.join,
        shape.relu,
        weight,
        np.array([channel.weight_exponent for channel in channels], np.int64),
        np.array([channel.bias for channel in channels], np.int64),
        weight_bits,
        None
        if multipliers is None
        else Requantisation(*(np.array(column, np.int64) for column in columns)),
    )


def _read_meta(data: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8")) if data is not None else {}
    except (ValueError, RecursionError) as error:  # the second for nests too deep to decode
        raise ValueError(f"bundle: META must be UTF-8 JSON, got {error}") from error
    _require(isinstance(document, dict), "META", "be a JSON object", type(document).__name__)
    return document


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"bundle: {name} must {rule}, got {value}")
