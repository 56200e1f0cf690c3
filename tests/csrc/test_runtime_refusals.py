"""What sl_open refuses, status by status: damage that a CRC shows, and lies that none does."""

import dataclasses
import struct
import zlib
from collections.abc import Callable

import pytest
from runtime_library import Model, statuses
from strategies import TINY, random_graph

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.layer_table import (
    BufferRecord,
    ChannelRecord,
    ChipRecord,
    LayerRecord,
    ModelRecord,
    PlanGroupRecord,
    PlanItemRecord,
    PlanRecord,
    PlanWindowRecord,
    Record,
    SectionRecord,
    VectorsRecord,
)
from hls_export.npu import load_chip
from hls_export.plan_section import pack_plan
from hls_export.planner import plan_stripes
from quant.contract import Op

DATA = pack_bundle(random_graph(1, TINY), load_chip("reference"))
SECTIONS = {section.kind: section for section in container.read_container(DATA)}
BUNDLE = read_bundle(DATA)
LAYERS = [BUNDLE.text(layer.name) for layer in BUNDLE.layers]
DOWN, UP, TAIL = LAYERS.index("encoder.0.down"), LAYERS.index("decoder.0.up"), len(LAYERS) - 1
CONV, FUSE = LAYERS.index("middle.dense.conv1"), LAYERS.index("middle.dense.fuse")


def patched(at: int, value: bytes) -> bytes:
    return DATA[:at] + value + DATA[at + len(value) :]


def with_header(at: int, value: bytes) -> bytes:
    """A change of the header under a right CRC."""
    header = patched(at, value)[:60]
    return header + struct.pack("<I", zlib.crc32(header)) + DATA[64:]


def with_entry(index: int, **fields: object) -> bytes:
    """A change of the section table under right CRCs."""
    start, end = 64, 64 + 32 * len(SECTIONS)
    place = start + 32 * index
    entry = SectionRecord.unpack(DATA[place : place + 32], "entry")
    changed = dataclasses.replace(entry, **fields).pack()  # type: ignore[arg-type]
    table = patched(place, changed)[start:end]
    header = patched(32, struct.pack("<I", zlib.crc32(table)))[:60]
    return header + struct.pack("<I", zlib.crc32(header)) + table + DATA[end:]


def sealed(*extra: tuple[str, bool, bytes], **changes: bytes | None) -> bytes:
    """Whole sections changed, dropped (None) or added, every CRC right."""
    kept = [
        (section.kind, section.required, changes.get(section.kind, section.data))
        for section in SECTIONS.values()
    ]
    return container.pack_container([*(s for s in kept if s[2] is not None), *extra])  # type: ignore[misc]


def forged(kind: str, row: int, record: type[Record], /, **fields: object) -> bytes:
    """One record changed, every CRC right; `view__field` reaches into a view."""
    content, place = SECTIONS[kind].data, row * record.SIZE
    changed: Record = record.unpack(content[place : place + record.SIZE], kind)
    for name, value in fields.items():
        outer, _, inner = name.partition("__")
        if inner:
            value = dataclasses.replace(getattr(changed, outer), **{inner: value})
        changed = dataclasses.replace(changed, **{outer: value})  # type: ignore[type-var]
    new = content[:place] + changed.pack() + content[place + record.SIZE :]
    return sealed(**{kind: new})


def with_byte(kind: str, at: int, value: int) -> bytes:
    """One byte of a section changed, every CRC right."""
    content = SECTIONS[kind].data
    return sealed(**{kind: content[:at] + bytes([value]) + content[at + 1 :]})


def with_weight(at: int, value: int) -> bytes:
    """One byte of WGHT changed, the CRC of its layer right too."""
    weights = bytearray(SECTIONS["WGHT"].data)
    weights[at] = value
    layers = b"".join(
        dataclasses.replace(
            layer,
            weight_crc32=zlib.crc32(weights[layer.weight_offset :][: layer.weight_bytes]),
        ).pack()
        for layer in BUNDLE.layers
    )
    return sealed(WGHT=bytes(weights), LAYR=layers)


def layer(index: int, **fields: object) -> bytes:
    return forged("LAYR", index, LayerRecord, **fields)


def channel(row: int, **fields: object) -> bytes:
    return forged("CHAN", row, ChannelRecord, **fields)


def gap_behind(kind: str) -> int:
    """Offset of the first padding byte behind a section."""
    section = SECTIONS[kind]
    end = section.offset + len(section.data)
    assert end % 64, f"{kind} must be followed by padding"
    return end


CONTAINER: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing": ("SL_TRUNCATED", lambda: b""),
    "half a header": ("SL_TRUNCATED", lambda: DATA[:63]),
    "a header alone": ("SL_TRUNCATED", lambda: DATA[:64]),
    "no trailer": ("SL_TRUNCATED", lambda: DATA[:-64]),
    "bytes behind": ("SL_BAD_SIZE", lambda: DATA + bytes(64)),
    "magic": ("SL_BAD_MAGIC", lambda: patched(3, b"\n")),
    "format version": ("SL_BAD_FORMAT_VERSION", lambda: with_header(8, b"\x03")),
    "arithmetic version": ("SL_BAD_ARITHMETIC_VERSION", lambda: with_header(12, b"\x02")),
    "header CRC": ("SL_BAD_HEADER_CRC", lambda: patched(60, b"\0\0\0\0")),
    "table offset": ("SL_BAD_HEADER", lambda: with_header(28, b"\x80")),
    "reserved byte of the header": ("SL_BAD_HEADER", lambda: with_header(40, b"\x01")),
    "table CRC": ("SL_BAD_TABLE_CRC", lambda: patched(64 + 4, b"\0")),
    "endless table": ("SL_BAD_TABLE", lambda: with_header(24, b"\xff\xff\xff\xff")),
    "unknown flag": ("SL_BAD_TABLE", lambda: with_entry(1, flags=3)),
    "known kind, optional": ("SL_BAD_TABLE", lambda: with_entry(1, flags=0)),
    "misaligned section": ("SL_BAD_TABLE", lambda: with_entry(1, offset=8)),
    "section on top of another": (
        "SL_BAD_TABLE",
        lambda: with_entry(1, offset=SECTIONS["MODL"].offset),
    ),
    "section outside the file": ("SL_BAD_TABLE", lambda: with_entry(8, bytes=2**63)),
    "section offset that wraps": ("SL_BAD_TABLE", lambda: with_entry(8, offset=2**64 - 64)),
    "section CRC": ("SL_BAD_SECTION_CRC", lambda: with_entry(1, crc32=0)),
    "padding": ("SL_BAD_PADDING", lambda: patched(gap_behind("STRS"), b"\x01")),
    "padding before the trailer": ("SL_BAD_PADDING", lambda: patched(gap_behind("META"), b"\x01")),
    "trailer CRC": ("SL_BAD_TRAILER", lambda: patched(len(DATA) - 64, b"\0\0")),
    "unknown required section": (
        "SL_UNKNOWN_REQUIRED_SECTION",
        lambda: sealed(("NEWS", True, b"x")),
    ),
    "section twice": ("SL_DUPLICATE_SECTION", lambda: sealed(("META", False, b"{}"))),
    **{
        f"no {kind}": ("SL_MISSING_SECTION", lambda kind=kind: sealed(**{kind: None}))
        for kind in container.KINDS_REQUIRED
    },
}

RECORDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "multiplier": ("SL_RESERVED_FEATURE", lambda: forged("MODL", 0, ModelRecord, arithmetic=2)),
    "16-bit model": (
        "SL_RESERVED_FEATURE",
        lambda: forged("MODL", 0, ModelRecord, activation_bits=16),
    ),
    "4-bit model": ("SL_RESERVED_FEATURE", lambda: forged("MODL", 0, ModelRecord, weight_bits=4)),
    "16-bit buffer": ("SL_RESERVED_FEATURE", lambda: forged("BUFS", 1, BufferRecord, bits=16)),
    "16-bit layer": ("SL_RESERVED_FEATURE", lambda: layer(1, activation_bits=16)),
    "4-bit layer": ("SL_RESERVED_FEATURE", lambda: layer(1, weight_bits=4)),
    "size of MODL": ("SL_BAD_MODEL", lambda: sealed(MODL=SECTIONS["MODL"].data[:-1])),
    "levels": ("SL_BAD_MODEL", lambda: forged("MODL", 0, ModelRecord, levels=7)),
    "layer count": ("SL_BAD_MODEL", lambda: forged("MODL", 0, ModelRecord, layer_count=2**31)),
    "channel count": ("SL_BAD_MODEL", lambda: forged("MODL", 0, ModelRecord, channel_count=0)),
    "weight bytes": ("SL_BAD_MODEL", lambda: forged("MODL", 0, ModelRecord, weight_bytes=2**63)),
    "reserved byte of MODL": ("SL_BAD_MODEL", lambda: with_byte("MODL", 63, 1)),
    "block of MODL": ("SL_BAD_CHIP", lambda: forged("MODL", 0, ModelRecord, channel_block=16)),
    "block": ("SL_BAD_CHIP", lambda: forged("CHIP", 0, ChipRecord, channel_block=128)),
    "alignment": ("SL_BAD_CHIP", lambda: forged("CHIP", 0, ChipRecord, alignment=24)),
    "accumulator of the chip": (
        "SL_BAD_CHIP",
        lambda: forged("CHIP", 0, ChipRecord, accumulator_bits=8),
    ),
    "largest frame": ("SL_BAD_CHIP", lambda: forged("CHIP", 0, ChipRecord, max_width=0)),
    "reserved byte of CHIP": ("SL_BAD_CHIP", lambda: with_byte("CHIP", 63, 1)),
    "no strings": ("SL_BAD_STRINGS", lambda: sealed(STRS=b"")),
    "open string": ("SL_BAD_STRINGS", lambda: sealed(STRS=SECTIONS["STRS"].data + b"x")),
    "first string": ("SL_BAD_STRINGS", lambda: with_byte("STRS", 0, 65)),
    "name of the model": (
        "SL_BAD_STRINGS",
        lambda: forged("MODL", 0, ModelRecord, name=len(SECTIONS["STRS"].data)),
    ),
    "name of a buffer": ("SL_BAD_BUFFER", lambda: forged("BUFS", 1, BufferRecord, name=2**32 - 1)),
    "no channels": ("SL_BAD_BUFFER", lambda: forged("BUFS", 1, BufferRecord, channels=0)),
    "level": ("SL_BAD_BUFFER", lambda: forged("BUFS", 1, BufferRecord, level=2)),
    "exponent": ("SL_BAD_BUFFER", lambda: forged("BUFS", 1, BufferRecord, exponent=13)),
    "size of a buffer": (
        "SL_BAD_BUFFER",
        lambda: forged("BUFS", 1, BufferRecord, bytes_per_cell=8),
    ),
    "kind of a buffer": ("SL_BAD_BUFFER", lambda: forged("BUFS", 1, BufferRecord, kind=2)),
    "no image": ("SL_BAD_BUFFER", lambda: forged("BUFS", 0, BufferRecord, kind=0)),
    "image with an address": (
        "SL_BAD_BUFFER",
        lambda: forged("BUFS", 0, BufferRecord, address_per_cell=16),
    ),
    "name of a layer": ("SL_BAD_LAYER", lambda: layer(1, name=0)),
    "no op": ("SL_BAD_LAYER", lambda: layer(1, op=0)),
    "unknown op": ("SL_BAD_LAYER", lambda: layer(1, op=6)),
    "kernel": ("SL_BAD_LAYER", lambda: layer(1, kernel=1)),
    "stride": ("SL_BAD_LAYER", lambda: layer(1, stride=2)),
    "flags": ("SL_BAD_LAYER", lambda: layer(1, flags=0x85)),
    "no output": ("SL_BAD_LAYER", lambda: layer(1, flags=1)),
    "tail in the middle": ("SL_BAD_LAYER", lambda: layer(CONV, op=Op.TAIL)),
    "no tail": ("SL_BAD_LAYER", lambda: layer(TAIL, op=Op.CONV3X3)),
    "tail with relu": ("SL_BAD_LAYER", lambda: layer(TAIL, flags=1)),
    "no output channels": ("SL_BAD_LAYER", lambda: layer(TAIL, out_channels=0)),
    "quarter of a channel": ("SL_BAD_LAYER", lambda: layer(UP, out_channels=6)),
    "weights elsewhere": ("SL_BAD_LAYER", lambda: layer(1, weight_offset=0)),
    "weights of another size": ("SL_BAD_LAYER", lambda: layer(1, weight_bytes=2**63)),
    "channels elsewhere": ("SL_BAD_LAYER", lambda: layer(1, channel_row=0)),
    "macs": ("SL_BAD_LAYER", lambda: layer(1, macs_per_cell=1)),
    "reserved byte of a layer": ("SL_BAD_LAYER", lambda: with_byte("LAYR", 127, 1)),
    "view of no buffer": ("SL_BAD_VIEW", lambda: layer(1, input__buffer=99)),
    "view beyond its buffer": ("SL_BAD_VIEW", lambda: layer(1, input__channel_offset=9)),
    "view far beyond": ("SL_BAD_VIEW", lambda: layer(1, input__channel_offset=65535)),
    "view of no channels": ("SL_BAD_VIEW", lambda: layer(1, output__channels=0)),
    "channels of the input": ("SL_BAD_VIEW", lambda: layer(1, in_channels=1)),
    "pixel stride": ("SL_BAD_VIEW", lambda: layer(1, input__pixel_stride=1)),
    "address of a view": ("SL_BAD_VIEW", lambda: layer(1, input__address_per_cell=16)),
    "level of a view": ("SL_BAD_VIEW", lambda: layer(1, input__level=1)),
    "exponent of a view": ("SL_BAD_VIEW", lambda: layer(1, output__exponent=-1)),
    "level of the output": ("SL_BAD_VIEW", lambda: layer(DOWN, op=Op.CONV3X3, stride=1)),
    "join where none is": ("SL_BAD_VIEW", lambda: layer(1, join__channels=1)),
    "no join where one is": ("SL_BAD_VIEW", lambda: layer(FUSE, flags=4)),
    "shift of 0": ("SL_BAD_CHANNEL", lambda: channel(0, shift=0)),
    "another shift": ("SL_BAD_CHANNEL", lambda: channel(0, shift=24)),
    "shift of 255": ("SL_BAD_CHANNEL", lambda: channel(0, shift=255)),
    "join shift without a join": ("SL_BAD_CHANNEL", lambda: channel(0, join_shift=1)),
    "weight exponent": ("SL_BAD_CHANNEL", lambda: channel(0, weight_exponent=16)),
    "reserved byte of a channel": ("SL_BAD_CHANNEL", lambda: with_byte("CHAN", 7, 1)),
    "CRC of weights": ("SL_BAD_WEIGHTS", lambda: layer(1, weight_crc32=0)),
    "weight of -128": ("SL_BAD_WEIGHTS", lambda: with_weight(0, 0x80)),
    "lane beyond the channels": ("SL_BAD_WEIGHTS", lambda: with_weight(4, 1)),
    "padding of weights": ("SL_BAD_WEIGHTS", lambda: with_weight(216, 1)),
    "bias beyond the proof": ("SL_BAD_ACCUMULATOR", lambda: channel(0, bias=2**31 - 1)),
    "least bias": ("SL_BAD_ACCUMULATOR", lambda: channel(0, bias=-(2**31))),
    "accumulator width": ("SL_BAD_ACCUMULATOR", lambda: layer(1, accumulator_bits=32)),
    "accumulator of a small chip": (
        "SL_BAD_ACCUMULATOR",
        lambda: forged("CHIP", 0, ChipRecord, accumulator_bits=16),
    ),
    "vectors of no size": ("SL_BAD_VECTORS", lambda: forged("VECT", 0, VectorsRecord, width=0)),
    "vectors of another size": (
        "SL_BAD_VECTORS",
        lambda: forged("VECT", 0, VectorsRecord, width=36),
    ),
    "large vectors": (
        "SL_BAD_VECTORS",
        lambda: forged("VECT", 0, VectorsRecord, width=2**31, height=2**31),
    ),
    "layers of the vectors": (
        "SL_BAD_VECTORS",
        lambda: forged("VECT", 0, VectorsRecord, layer_count=3),
    ),
    "vectors cut": ("SL_BAD_VECTORS", lambda: sealed(VECT=SECTIONS["VECT"].data[:-1])),
    "vectors without a head": ("SL_BAD_VECTORS", lambda: sealed(VECT=b"")),
    "vectors beyond the chip": (
        "SL_BAD_VECTORS",
        lambda: forged("CHIP", 0, ChipRecord, max_height=20),
    ),
}


def moved(index: int, address: int) -> bytes:
    """A buffer at another address, all views of it agreeing."""
    buffers = list(BUNDLE.buffers)
    buffers[index] = dataclasses.replace(buffers[index], address_per_cell=address)
    layers = []
    for record in BUNDLE.layers:
        views = {
            name: dataclasses.replace(getattr(record, name), address_per_cell=address)
            for name in ("input", "output", "join")
            if getattr(record, name).channels and getattr(record, name).buffer == index
        }
        layers.append(dataclasses.replace(record, **views).pack())
    return sealed(BUFS=b"".join(buffer.pack() for buffer in buffers), LAYR=b"".join(layers))


def swapped(one: int, other: int) -> bytes:
    """Two layers' views exchanged, all else left: their order of reads and writes changes."""
    layers = list(BUNDLE.layers)
    for at, source in ((one, BUNDLE.layers[other]), (other, BUNDLE.layers[one])):
        layers[at] = dataclasses.replace(layers[at], output=source.output)
    return sealed(LAYR=b"".join(record.pack() for record in layers))


def colliding() -> bytes:
    """The second buffer that lives with the first, moved to its address."""
    first = next(b for b in BUNDLE.buffers if b.kind == 0)
    index = next(
        i
        for i, b in enumerate(BUNDLE.buffers)
        if b.kind == 0
        and b is not first
        and b.first_layer <= first.last_layer
        and first.first_layer <= b.last_layer
    )
    return moved(index, first.address_per_cell)


CONV2 = CONV + 1

DATAFLOW: dict[str, tuple[str, Callable[[], bytes]]] = {
    "misaligned buffer": ("SL_BUFFER_OUTSIDE_ARENA", lambda: moved(1, 8)),
    "buffer behind the arena": (
        "SL_BUFFER_OUTSIDE_ARENA",
        lambda: moved(1, BUNDLE.model.arena_bytes_per_cell),
    ),
    "buffer far behind": ("SL_BUFFER_OUTSIDE_ARENA", lambda: moved(1, 2**32 - 16)),
    "arena too small": (
        "SL_BUFFER_OUTSIDE_ARENA",
        lambda: forged(
            "MODL",
            0,
            ModelRecord,
            arena_bytes_per_cell=BUNDLE.model.arena_bytes_per_cell - 16,
        ),
    ),
    "misaligned arena": (
        "SL_BUFFER_OUTSIDE_ARENA",
        lambda: forged(
            "MODL",
            0,
            ModelRecord,
            arena_bytes_per_cell=BUNDLE.model.arena_bytes_per_cell + 8,
        ),
    ),
    "buffers at one address": ("SL_BUFFERS_OVERLAP", colliding),
    "lifetime begins late": (
        "SL_BAD_LIFETIME",
        lambda: forged("BUFS", 1, BufferRecord, first_layer=1),
    ),
    "lifetime ends early": (
        "SL_BAD_LIFETIME",
        lambda: forged("BUFS", 1, BufferRecord, last_layer=BUNDLE.buffers[1].last_layer - 1),
    ),
    "members of a dense block swapped": ("SL_READ_BEFORE_WRITE", lambda: swapped(CONV, CONV2)),
    "member written twice": (
        "SL_WRITTEN_TWICE",
        lambda: layer(CONV2, output=BUNDLE.layers[CONV].output),
    ),
    "a layer writes what it reads": (
        "SL_WRITTEN_TWICE",
        lambda: layer(CONV, output__channel_offset=0),
    ),
}

STRIPES = plan_stripes(random_graph(1, TINY), load_chip("reference"))
PLAN_DATA = pack_plan(random_graph(1, TINY), STRIPES)


def with_plan(table: type[Record], **fields: object) -> bytes:
    """The first record of one of PLAN's tables changed, every CRC right."""
    head = PlanRecord.unpack(PLAN_DATA[: PlanRecord.SIZE], "PLAN")
    places = {PlanRecord: 0, PlanGroupRecord: PlanRecord.SIZE}
    places[PlanWindowRecord] = PlanRecord.SIZE + PlanGroupRecord.SIZE * head.group_count
    places[PlanItemRecord] = places[PlanWindowRecord] + PlanWindowRecord.SIZE * head.window_count
    place = places[table]
    record = table.unpack(PLAN_DATA[place : place + table.SIZE], "PLAN")
    changed = dataclasses.replace(record, **fields).pack()  # type: ignore[type-var]
    return sealed(("PLAN", False, PLAN_DATA[:place] + changed + PLAN_DATA[place + table.SIZE :]))


FIRST_WINDOW, FIRST_ITEM = STRIPES.groups[0].windows[0], STRIPES.groups[0].items[0]

PLAN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "plan cut": ("SL_BAD_PLAN", lambda: sealed(("PLAN", False, PLAN_DATA[:-1]))),
    "plan empty": ("SL_BAD_PLAN", lambda: sealed(("PLAN", False, b""))),
    "plan of absurd counts": (
        "SL_BAD_PLAN",
        lambda: with_plan(PlanRecord, item_count=2**32 - 1),
    ),
    "plan of another alignment": ("SL_BAD_PLAN", lambda: with_plan(PlanRecord, alignment=1)),
    "group out of order": ("SL_BAD_PLAN", lambda: with_plan(PlanGroupRecord, first_item=1)),
    "tile of nothing": ("SL_BAD_PLAN_GROUP", lambda: with_plan(PlanGroupRecord, tile_width=0)),
    "window behind the SRAM": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanWindowRecord, address=STRIPES.sram),
    ),
    "window too short": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanWindowRecord, rows=FIRST_WINDOW.rows - 1),
    ),
    "window too narrow": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanWindowRecord, columns=FIRST_WINDOW.columns - 1),
    ),
    "window over another": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanWindowRecord, address=STRIPES.groups[0].windows[1].address),
    ),
    "load that ends early": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanItemRecord, top=FIRST_ITEM.top - 1, bottom=FIRST_ITEM.bottom - 1),
    ),
    "load of a spill that is not there": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanItemRecord, spill=7),
    ),
    "load into a window that is not there": (
        "SL_BAD_PLAN_GROUP",
        lambda: with_plan(PlanItemRecord, output=999),
    ),
}

CASES = {**CONTAINER, **RECORDS, **DATAFLOW, **PLAN}


@pytest.mark.parametrize("name", CASES)
def test_refusal(name: str) -> None:
    status, damaged = CASES[name]
    assert Model(damaged()).status == status


def test_every_status_of_sl_open_is_met() -> None:
    names = statuses()
    of_open = names[names.index("SL_TRUNCATED") : names.index("SL_IMAGE_EMPTY")]
    assert set(of_open) == {status for status, _ in CASES.values()}


def test_the_bundle_itself_is_accepted() -> None:
    assert Model(DATA).status == "SL_OK"
    assert Model(sealed()).status == "SL_OK"
    assert Model(sealed(("NEWS", False, b"later"))).status == "SL_OK"
    assert Model(sealed(META=None)).status == "SL_OK"
    assert Model(with_header(10, b"\x07")).status == "SL_OK"  # a later minor version


def test_sections_in_any_order() -> None:
    backwards = [(s.kind, s.required, s.data) for s in reversed(SECTIONS.values())]
    assert Model(container.pack_container(backwards)).status == "SL_OK"
