"""The fixed-size records of a bundle: one declarative table of names, offsets and types.

Everything is little-endian. Bytes that no field covers are reserved: written as zero, refused when
not. docs/FORMAT.md explains the meaning; csrc/contract/bundle_format.h is the same table in C.
"""

import dataclasses
import functools
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_type_hints

ROWS_MAX = 4096  # buffers, and layers: a reader compares each with each


class At(NamedTuple):
    """Place of a field: byte offset and struct code; no code for a nested record."""

    offset: int
    code: str = ""


class Place(NamedTuple):
    """A field as the table places it."""

    name: str
    offset: int
    size: int
    code: str
    nested: "type[Record] | None"


R = TypeVar("R", bound="Record")
Raw = bytes  # a record may call a field `bytes`


class Record:
    """Base of the records: a frozen dataclass of `size` bytes whose fields say where they lie."""

    SIZE: ClassVar[int]

    def __init_subclass__(cls, size: int) -> None:
        cls.SIZE = size

    @classmethod
    @functools.cache
    def places(cls) -> tuple[Place, ...]:
        """The fields in order of offset; ValueError when they overlap or leave it."""
        hints = get_type_hints(cls, include_extras=True)
        found = []
        for name, hint in hints.items():
            for at in getattr(hint, "__metadata__", ()):
                nested = hint.__origin__ if issubclass(hint.__origin__, Record) else None
                size = nested.SIZE if nested else struct.calcsize("<" + at.code)
                found.append(Place(name, at.offset, size, at.code or f"{size}s", nested))
        end = 0
        for place in found:
            if place.offset < end or place.offset + place.size > cls.SIZE:
                raise ValueError(
                    f"record {cls.__name__}: {place.name} must lie in {end}..{cls.SIZE}, "
                    f"got {place.offset}"
                )
            end = place.offset + place.size
        return tuple(found)

    @classmethod
    @functools.cache
    def _struct(cls) -> struct.Struct:
        parts, end = ["<"], 0
        for place in cls.places():
            parts.append(f"{place.offset - end}x{place.code}")
            end = place.offset + place.size
        return struct.Struct("".join(parts) + f"{cls.SIZE - end}x")

    def pack(self) -> bytes:
        """`SIZE` bytes; raises ValueError when a number does not fit its field."""
        values = []
        for place in self.places():
            value = getattr(self, place.name)
            if place.nested:
                value = value.pack()
            else:
                _check_fits(type(self).__name__, place, value)
            values.append(value)
        return self._struct().pack(*values)

    @classmethod
    def unpack(cls: type[R], data: bytes, what: str) -> R:
        """Read `SIZE` bytes; `what` names their place in errors.

        Raises ValueError when a reserved byte is not zero.
        """
        values = {
            place.name: place.nested.unpack(value, f"{what} {place.name}")
            if place.nested
            else value
            for place, value in zip(cls.places(), cls._struct().unpack(data), strict=True)
        }
        record = cls(**values)
        expected = record.pack()
        if data != expected:
            at = next(i for i in range(cls.SIZE) if data[i] != expected[i])
            raise ValueError(f"bundle: {what} reserved byte {at} must be 0, got {data[at]}")
        return record


def _check_fits(what: str, place: Place, value: Any) -> None:
    try:
        fits = len(struct.pack("<" + place.code, value)) == place.size
        if isinstance(value, bytes):
            fits = len(value) == place.size
    except struct.error:
        fits = False
    if not fits:
        bits = 8 * place.size
        raise ValueError(
            f"bundle: {what} {place.name} must fit {bits} bits "
            f"({'signed' if place.code.islower() else 'unsigned'}), got {value!r}"
        )


def pack_table(rows: Iterable[Record]) -> bytes:
    """The records one behind the other."""
    return b"".join(row.pack() for row in rows)


def unpack_table(record: type[R], data: bytes, what: str) -> tuple[R, ...]:
    """Read `data` as records one behind the other.

    Raises ValueError when the size is no multiple of the record's or a reserved byte is not zero.
    """
    if len(data) % record.SIZE:
        raise ValueError(
            f"bundle: {what} size must be a multiple of {record.SIZE}, got {len(data)}"
        )
    return tuple(
        record.unpack(data[start : start + record.SIZE], f"{what}[{start // record.SIZE}]")
        for start in range(0, len(data), record.SIZE)
    )


@dataclass(frozen=True)
class HeaderRecord(Record, size=64):
    """The first bytes of a bundle."""

    magic: Annotated[Raw, At(0, "8s")]
    format_major: Annotated[int, At(8, "H")]
    format_minor: Annotated[int, At(10, "H")]
    arithmetic_version: Annotated[int, At(12, "H")]
    file_bytes: Annotated[int, At(16, "Q")]
    section_count: Annotated[int, At(24, "I")]
    table_offset: Annotated[int, At(28, "I")]
    table_crc32: Annotated[int, At(32, "I")]
    header_crc32: Annotated[int, At(60, "I")]  # of bytes 0..59


@dataclass(frozen=True)
class SectionRecord(Record, size=32):
    """An entry of the section table."""

    kind: Annotated[Raw, At(0, "4s")]
    flags: Annotated[int, At(4, "I")]
    offset: Annotated[int, At(8, "Q")]
    bytes: Annotated[int, At(16, "Q")]  # without the padding
    crc32: Annotated[int, At(24, "I")]


@dataclass(frozen=True)
class TrailerRecord(Record, size=64):
    """The last bytes of a bundle."""

    sha256: Annotated[Raw, At(0, "32s")]  # of everything before the trailer
    crc32: Annotated[int, At(60, "I")]  # of the trailer's bytes 0..59


@dataclass(frozen=True)
class ModelRecord(Record, size=64):
    """MODL: counts and sizes of a model."""

    levels: Annotated[int, At(0, "I")]
    buffer_count: Annotated[int, At(4, "I")]
    layer_count: Annotated[int, At(8, "I")]
    channel_count: Annotated[int, At(12, "I")]
    channel_block: Annotated[int, At(16, "I")]
    arena_bytes_per_cell: Annotated[int, At(20, "I")]
    name: Annotated[int, At(24, "I")]
    arithmetic: Annotated[int, At(28, "B")]
    activation_bits: Annotated[int, At(29, "B")]
    weight_bits: Annotated[int, At(30, "B")]
    weight_bytes: Annotated[int, At(32, "Q")]


@dataclass(frozen=True)
class ChipRecord(Record, size=64):
    """CHIP: what the bundle was laid out for."""

    name: Annotated[int, At(0, "I")]
    channel_block: Annotated[int, At(4, "I")]
    alignment: Annotated[int, At(8, "I")]
    accumulator_bits: Annotated[int, At(12, "I")]
    max_width: Annotated[int, At(16, "I")]
    max_height: Annotated[int, At(20, "I")]
    capability_crc32: Annotated[int, At(24, "I")]


@dataclass(frozen=True)
class BufferRecord(Record, size=32):
    """A row of BUFS: an activation map and its place in the arena."""

    name: Annotated[int, At(0, "I")]
    channels: Annotated[int, At(4, "H")]
    level: Annotated[int, At(6, "B")]
    exponent: Annotated[int, At(7, "b")]
    bits: Annotated[int, At(8, "B")]
    kind: Annotated[int, At(9, "B")]
    address_per_cell: Annotated[int, At(12, "I")]
    bytes_per_cell: Annotated[int, At(16, "I")]
    first_layer: Annotated[int, At(20, "H")]
    last_layer: Annotated[int, At(22, "H")]


@dataclass(frozen=True)
class ViewRecord(Record, size=16):
    """A channel slice of a buffer, with what a layer needs of that buffer; zero when absent."""

    buffer: Annotated[int, At(0, "H")]
    channel_offset: Annotated[int, At(2, "H")]
    channels: Annotated[int, At(4, "H")]
    pixel_stride: Annotated[int, At(6, "H")]
    address_per_cell: Annotated[int, At(8, "I")]
    level: Annotated[int, At(12, "B")]
    exponent: Annotated[int, At(13, "b")]


NO_VIEW = ViewRecord(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class LayerRecord(Record, size=128):
    """A row of LAYR: one convolution in execution order."""

    name: Annotated[int, At(0, "I")]
    op: Annotated[int, At(4, "B")]
    flags: Annotated[int, At(5, "B")]
    activation_bits: Annotated[int, At(6, "B")]
    weight_bits: Annotated[int, At(7, "B")]
    kernel: Annotated[int, At(8, "B")]
    stride: Annotated[int, At(9, "B")]
    accumulator_bits: Annotated[int, At(10, "B")]
    input: Annotated[ViewRecord, At(16)]
    output: Annotated[ViewRecord, At(32)]
    join: Annotated[ViewRecord, At(48)]
    out_channels: Annotated[int, At(64, "I")]
    in_channels: Annotated[int, At(68, "I")]
    weight_offset: Annotated[int, At(72, "Q")]
    weight_bytes: Annotated[int, At(80, "Q")]
    channel_row: Annotated[int, At(88, "I")]
    weight_crc32: Annotated[int, At(92, "I")]
    macs_per_cell: Annotated[int, At(96, "Q")]


@dataclass(frozen=True)
class ChannelRecord(Record, size=8):
    """A row of CHAN: the numbers of one output channel."""

    bias: Annotated[int, At(0, "i")]
    shift: Annotated[int, At(4, "B")]
    join_shift: Annotated[int, At(5, "B")]
    weight_exponent: Annotated[int, At(6, "B")]


@dataclass(frozen=True)
class MultiplierRecord(Record, size=16):
    """A row of MULT: the requantisation of one output channel in multiplier arithmetic."""

    multiplier: Annotated[int, At(0, "I")]
    join_multiplier: Annotated[int, At(4, "I")]
    shift: Annotated[int, At(8, "B")]


@dataclass(frozen=True)
class PackedWeightsRecord(Record, size=64):
    """The head of WRIC; a StreamRecord per layer and the streams follow."""

    layer_count: Annotated[int, At(0, "I")]
    plain_major: Annotated[int, At(4, "H")]
    plain_minor: Annotated[int, At(6, "H")]
    plain_sha256: Annotated[bytes, At(8, "32s")]


@dataclass(frozen=True)
class StreamRecord(Record, size=16):
    """A layer's weights as Golomb-Rice codes: where they lie in WRIC."""

    offset: Annotated[int, At(0, "Q")]
    bytes: Annotated[int, At(8, "I")]
    k: Annotated[int, At(12, "B")]


@dataclass(frozen=True)
class VectorsRecord(Record, size=16):
    """The head of VECT; per-layer CRCs, the input and the output follow."""

    width: Annotated[int, At(0, "I")]
    height: Annotated[int, At(4, "I")]
    layer_count: Annotated[int, At(8, "I")]


@dataclass(frozen=True)
class PlanRecord(Record, size=64):
    """PLAN: sizes of a stripe plan and its tables, which follow it."""

    alignment: Annotated[int, At(0, "I")]
    sram_bytes: Annotated[int, At(4, "I")]
    dram_bytes_per_cell: Annotated[int, At(8, "I")]
    group_count: Annotated[int, At(12, "I")]
    window_count: Annotated[int, At(16, "I")]
    item_count: Annotated[int, At(20, "I")]
    spill_count: Annotated[int, At(24, "I")]


@dataclass(frozen=True)
class PlanGroupRecord(Record, size=32):
    """A group of layers that run tile by tile."""

    first_window: Annotated[int, At(0, "I")]
    window_count: Annotated[int, At(4, "I")]
    first_item: Annotated[int, At(8, "I")]
    item_count: Annotated[int, At(12, "I")]
    tile_height: Annotated[int, At(16, "I")]
    tile_width: Annotated[int, At(20, "I")]
    prologue: Annotated[int, At(24, "I")]


@dataclass(frozen=True)
class PlanWindowRecord(Record, size=32):
    """SRAM of a buffer's channels in one group: a ring of rows."""

    buffer: Annotated[int, At(0, "I")]
    channel_offset: Annotated[int, At(4, "I")]
    channels: Annotated[int, At(8, "I")]
    flags: Annotated[int, At(12, "I")]
    left: Annotated[int, At(16, "i")]
    rows: Annotated[int, At(20, "I")]
    columns: Annotated[int, At(24, "I")]
    address: Annotated[int, At(28, "I")]


@dataclass(frozen=True)
class PlanItemRecord(Record, size=64):
    """A layer or a load of a group."""

    layer: Annotated[int, At(0, "I")]
    input: Annotated[int, At(4, "I")]
    join: Annotated[int, At(8, "I")]
    output: Annotated[int, At(12, "I")]
    spill: Annotated[int, At(16, "I")]
    channel_offset: Annotated[int, At(20, "I")]
    channels: Annotated[int, At(24, "I")]
    top: Annotated[int, At(28, "i")]
    bottom: Annotated[int, At(32, "i")]
    left: Annotated[int, At(36, "i")]
    right: Annotated[int, At(40, "i")]
    weight_address: Annotated[int, At(44, "I")]


@dataclass(frozen=True)
class PlanSpillRecord(Record, size=32):
    """A tensor in DRAM between groups."""

    buffer: Annotated[int, At(0, "I")]
    channel_offset: Annotated[int, At(4, "I")]
    channels: Annotated[int, At(8, "I")]
    address_per_cell: Annotated[int, At(12, "I")]
    first_group: Annotated[int, At(16, "I")]
    last_group: Annotated[int, At(20, "I")]


def differing_field(got: Record, expected: Record) -> str:
    """Name of the first field, nested ones by path, in which two records of a type differ."""
    for field in dataclasses.fields(got):  # type: ignore[arg-type]
        mine, theirs = getattr(got, field.name), getattr(expected, field.name)
        if mine != theirs:
            inner = f".{differing_field(mine, theirs)}" if isinstance(mine, Record) else ""
            return field.name + inner
    raise ValueError("records: they must differ, got equal ones")
