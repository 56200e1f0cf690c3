"""The container of a bundle: header, section table, sections, trailer (docs/FORMAT.md).

Nothing here knows what the sections mean.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hls_export.layer_table import (
    HeaderRecord,
    SectionRecord,
    TrailerRecord,
    pack_table,
)
from quant import contract

MAGIC = b"SLB\r\n\x1a\n\0"
FORMAT_MAJOR = 2  # the newest; a file has the lowest that can say what it holds
FORMAT_MAJORS = (1, 2)
ALIGNMENT = 64
REQUIRED = 1  # bit 0 of a section's flags
KINDS_REQUIRED = ("MODL", "CHIP", "STRS", "BUFS", "LAYR", "CHAN", "WGHT", "VECT")
WEIGHTS, PACKED_WEIGHTS = "WGHT", "WRIC"  # a file holds one of the two
KINDS_WHEN_NEEDED = ("MULT", PACKED_WEIGHTS)  # required in the files that hold it; since 2.0
KINDS_OPTIONAL = ("META", "PLAN")
ADDED_IN = {"PLAN": 1}  # the minor of major 1 that brought a kind; the others were there at 0

HEADER, ENTRY, TRAILER = HeaderRecord.SIZE, SectionRecord.SIZE, TrailerRecord.SIZE


@dataclass(frozen=True)
class Section:
    """A section as it lies in a file: four ASCII letters, flag, place, CRC, bytes."""

    kind: str
    required: bool
    offset: int
    crc32: int
    data: bytes

    @property
    def intact(self) -> bool:
        return zlib.crc32(self.data) == self.crc32


def format_minor(major: int, kinds: Iterable[str]) -> int:
    """The lowest minor version that has these kinds of section."""
    return max(ADDED_IN.get(kind, 0) for kind in kinds) if major == 1 else 0


def pack_container(sections: Sequence[tuple[str, bool, bytes]], major: int = 1) -> bytes:
    """(kind, required, bytes) of each section, in order -> the file of a format's major version."""
    body = bytearray()
    start = _align(HEADER + ENTRY * len(sections))
    entries = []
    for kind, required, data in sections:
        entries.append(
            SectionRecord(
                kind.encode("ascii"),
                REQUIRED if required else 0,
                start + len(body),
                len(data),
                zlib.crc32(data),
            )
        )
        body += data
        body += bytes(_align(len(body)) - len(body))
    table = pack_table(entries)
    header = HeaderRecord(
        magic=MAGIC,
        format_major=major,
        format_minor=format_minor(major, (kind for kind, _, _ in sections)),
        arithmetic_version=contract.ARITHMETIC_VERSION,
        file_bytes=start + len(body) + TRAILER,
        section_count=len(sections),
        table_offset=HEADER,
        table_crc32=zlib.crc32(table),
        header_crc32=0,
    )
    header = replace(header, header_crc32=zlib.crc32(header.pack()[:60]))
    content = (header.pack() + table).ljust(start, b"\0") + body
    trailer = TrailerRecord(hashlib.sha256(content).digest(), 0)
    return content + replace(trailer, crc32=zlib.crc32(trailer.pack()[:60])).pack()


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def read_header(data: bytes) -> HeaderRecord:
    """The header of a whole file, checked; raises ValueError naming what does not hold."""
    _require(len(data) >= HEADER + TRAILER, "size", f"be at least {HEADER + TRAILER}", len(data))
    _require(data[:8] == MAGIC, "magic", f"be {MAGIC!r}", data[:8])
    major = int.from_bytes(data[8:10], "little")  # another major may place all else elsewhere
    known = " or ".join(f"{known}.x" for known in FORMAT_MAJORS)
    _require(major in FORMAT_MAJORS, "format version", f"be {known}", major)
    crc = zlib.crc32(data[:60])
    stored = int.from_bytes(data[60:64], "little")
    _require(stored == crc, "header CRC-32", f"be {crc:08x}", f"{stored:08x}")
    header = HeaderRecord.unpack(data[:HEADER], "header")
    version = header.arithmetic_version
    _require(
        version == contract.ARITHMETIC_VERSION,
        "arithmetic version",
        f"be {contract.ARITHMETIC_VERSION}",
        version,
    )
    _require(len(data) == header.file_bytes, "size", f"be {header.file_bytes}", len(data))
    _require(len(data) % ALIGNMENT == 0, "size", f"be a multiple of {ALIGNMENT}", len(data))
    _require(header.table_offset == HEADER, "table offset", f"be {HEADER}", header.table_offset)
    return header


def read_table(data: bytes) -> tuple[Section, ...]:
    """Sections in the order of a file whose header and table hold; their CRCs are not compared."""
    header = read_header(data)
    end = HEADER + ENTRY * header.section_count
    _require(
        end <= len(data) - TRAILER,
        "section count",
        f"leave a table within {len(data)} bytes",
        header.section_count,
    )
    crc = zlib.crc32(data[HEADER:end])
    _require(
        header.table_crc32 == crc, "table CRC-32", f"be {crc:08x}", f"{header.table_crc32:08x}"
    )
    return tuple(_sections(data, header.section_count))


def _sections(data: bytes, count: int) -> Iterator[Section]:
    limit = len(data) - TRAILER
    for index in range(count):
        place = HEADER + ENTRY * index
        entry = SectionRecord.unpack(data[place : place + ENTRY], f"section {index}")
        what = f"section {index}"
        _require(
            entry.kind.isascii() and entry.kind.decode("latin-1").isprintable(),
            f"{what} kind",
            "be four printable ASCII characters",
            entry.kind,
        )
        _require(entry.flags in (0, REQUIRED), f"{what} flags", "be 0 or 1", entry.flags)
        _require(
            entry.offset % ALIGNMENT == 0 and entry.offset <= limit,
            f"{what} offset",
            f"be a multiple of {ALIGNMENT} up to {limit}",
            entry.offset,
        )
        _require(
            entry.bytes <= limit - entry.offset,
            f"{what} size",
            f"end before the trailer at {limit}",
            entry.bytes,
        )
        yield Section(
            entry.kind.decode("ascii"),
            entry.flags == REQUIRED,
            entry.offset,
            entry.crc32,
            data[entry.offset : entry.offset + entry.bytes],
        )


def read_container(data: bytes, weights: str = WEIGHTS) -> tuple[Section, ...]:
    """Every section of a file that is intact: each CRC, each padding byte, the SHA-256.

    weights: the kind of section that holds them, WEIGHTS or PACKED_WEIGHTS. Raises ValueError
    naming the first thing that does not hold.
    """
    sections = read_table(data)
    end = HEADER + ENTRY * len(sections)
    for section in sections:
        _check_gap(data, end, section.offset, f"section {section.kind}")
        _require(
            section.intact,
            f"section {section.kind} CRC-32",
            f"be {zlib.crc32(section.data):08x}",
            f"{section.crc32:08x}",
        )
        end = section.offset + len(section.data)
    limit = len(data) - TRAILER
    _check_gap(data, end, limit, "trailer")
    crc = zlib.crc32(data[limit : limit + 60])
    trailer = TrailerRecord.unpack(data[limit:], "trailer")
    _require(trailer.crc32 == crc, "trailer CRC-32", f"be {crc:08x}", f"{trailer.crc32:08x}")
    digest = hashlib.sha256(data[:limit]).digest()
    _require(trailer.sha256 == digest, "SHA-256", f"be {digest.hex()}", trailer.sha256.hex())
    _check_kinds(sections, read_header(data).format_major, weights)
    return sections


def _check_gap(data: bytes, start: int, end: int, what: str) -> None:
    """The bytes before `what` are padding: less than 64, all zero; a negative gap is an overlap."""
    _require(0 <= end - start < ALIGNMENT, f"{what} offset", f"be {_align(start)}", end)
    gap = data[start:end]
    at = next((index for index, byte in enumerate(gap) if byte), 0)
    _require(not any(gap), f"padding at {start + at}", "be 0", gap[at] if gap else 0)


def is_required(kind: str) -> bool:
    """Whether a section of a known kind carries the flag."""
    return kind in KINDS_REQUIRED or kind in KINDS_WHEN_NEEDED


def _check_kinds(sections: Sequence[Section], major: int, weights: str) -> None:
    kinds = [section.kind for section in sections]
    if weights == WEIGHTS:
        _require(
            PACKED_WEIGHTS not in kinds,
            "weights",
            "be plain (`python -m hls_export decompress` makes them so)",
            f"section {PACKED_WEIGHTS}",
        )
    else:
        _require(WEIGHTS not in kinds, "weights", "be compressed", f"section {WEIGHTS}")
    known = {*KINDS_REQUIRED, *KINDS_OPTIONAL, *(KINDS_WHEN_NEEDED if major > 1 else ())}
    for section in sections:
        kind = section.kind
        if kind in known:
            _require(kinds.count(kind) == 1, f"section {kind}", "occur once", kinds.count(kind))
            required = is_required(kind)
            _require(
                section.required == required,
                f"section {kind} flags",
                f"be {int(required)}",
                int(section.required),
            )
        else:
            _require(
                not section.required,
                f"required section {kind}",
                f"be one of {', '.join(KINDS_REQUIRED)} (a newer kit wrote this bundle)",
                kind,
            )
    for kind in (weights if kind == WEIGHTS else kind for kind in KINDS_REQUIRED):
        _require(kind in kinds, f"section {kind}", "be present", ", ".join(kinds))


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"bundle: {name} must {rule}, got {value}")
