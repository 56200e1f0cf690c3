"""Hostile bundles against the Python reader: it refuses with ValueError, and in little memory.

Bundles are forged as in fuzz_bundle.c: whole sections change, tables state absurd numbers, and
every CRC and the SHA-256 are right.
"""

import hashlib
import random
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import STYLES, TINY, random_graph, seeds

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.executors.c_runtime import native
from hls_export.layer_table import (
    ROWS_MAX,
    BufferRecord,
    ChannelRecord,
    ChipRecord,
    LayerRecord,
    ModelRecord,
    Record,
    VectorsRecord,
    ViewRecord,
)
from hls_export.npu import load_chip

Sections = list[tuple[str, bool, bytes]]

BUNDLES = [
    pack_bundle(random_graph(seed, TINY, style), load_chip("reference"))
    for seed in range(2)
    for style in STYLES
]
BUNDLE = BUNDLES[0]
RECORDS: dict[str, type[Record]] = {
    "MODL": ModelRecord,
    "CHIP": ChipRecord,
    "BUFS": BufferRecord,
    "LAYR": LayerRecord,
    "CHAN": ChannelRecord,
    "VECT": VectorsRecord,
}
# Of numbers at the ends of their fields.
ENDS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


def taken_apart(data: bytes) -> Sections:
    return [(s.kind, s.required, s.data) for s in container.read_container(data)]


def refusals(data: bytes) -> int:
    """How many of the two readers refuse; anything but a refusal is an error of the test."""
    count = 0
    for reader in (read_bundle, native().Model):
        try:
            reader(data)
        except ValueError:
            count += 1
    return count


def resized(content: bytes, rng: random.Random) -> bytes:
    """Bytes taken out, put in or repeated, often by the size of a record."""
    at = rng.randrange(len(content) + 1)
    size = rng.choice([1, 4, 8, 16, 32, 64, 128, 1000])
    if rng.random() < 0.4:
        return content[:at] + content[at + size :]
    put = content[at : at + size] if rng.random() < 0.5 else rng.randbytes(size)
    return content[:at] + put + content[at:]


def rearranged(sections: Sections, rng: random.Random) -> Sections:
    """A section taken out, doubled, moved, renamed, or of another size."""
    index = rng.randrange(len(sections))
    kind, required, content = sections.pop(index)
    match rng.randrange(5):
        case 0:
            return sections
        case 1:
            return [*sections, (kind, required, content), (kind, required, content)]
        case 2:
            sections.insert(rng.randrange(len(sections) + 1), (kind, required, content))
        case 3:
            sections.insert(index, (kind[:3] + "~", not required, content))
        case _:
            sections.insert(index, (kind, required, resized(content, rng)))
    return sections


def written_over(sections: Sections, rng: random.Random) -> Sections:
    """A field of a record at an end of its range."""
    index = rng.randrange(len(sections))
    kind, required, content = sections[index]
    record = RECORDS.get(kind)
    if record is None or len(content) < record.SIZE:
        return sections
    place = rng.choice([place for place in record.places() if place.nested is None])
    at = place.offset + record.SIZE * rng.randrange(len(content) // record.SIZE)
    value = (rng.choice(ENDS) & (1 << 8 * place.size) - 1).to_bytes(place.size, "little")
    sections[index] = (kind, required, content[:at] + value + content[at + place.size :])
    return sections


@given(st.sampled_from([rearranged, written_over]), st.integers(1, 3), seeds)
def test_both_readers_refuse_or_accept_alike(
    change: Callable[[Sections, random.Random], Sections], times: int, seed: int
) -> None:
    rng = random.Random(seed)
    sections = taken_apart(rng.choice(BUNDLES))
    for _ in range(times):
        if sections:
            sections = change(sections, rng)
    data = container.pack_container(sections)
    # What no device needs, Python alone looks at: the order of the names, and META.
    if refusals(data) == 1:
        with pytest.raises(ValueError, match=r"STRS|name|META"):
            read_bundle(data)
        native().Model(data)


def with_rows(kind: str, change: Callable[[Record], Record], rows: Sequence[int] = (0,)) -> bytes:
    """The bundle with some rows of a table changed."""
    record = RECORDS[kind]
    sections = []
    for name, required, content in taken_apart(BUNDLE):
        if name == kind:
            table = bytearray(content)
            for row in rows:
                at = row * record.SIZE
                old = record.unpack(bytes(table[at : at + record.SIZE]), kind)
                table[at : at + record.SIZE] = change(old).pack()
            content = bytes(table)
        sections.append((name, required, content))
    return container.pack_container(sections)


def many_rows(kind: str, count: int) -> bytes:
    sections = []
    for name, required, content in taken_apart(BUNDLE):
        size = RECORDS[kind].SIZE
        sections.append((name, required, content[:size] * count if name == kind else content))
    return container.pack_container(sections)


def huge_entry(at: int, value: int, size: int) -> bytes:
    """A bundle whose header or section table states a huge number, their CRCs right."""
    data = bytearray(BUNDLE)
    data[at : at + size] = value.to_bytes(size, "little")
    count = min(int.from_bytes(data[24:28], "little"), (len(data) - 128) // 32)
    crc = zlib.crc32
    data[32:36] = crc(data[64 : 64 + 32 * count]).to_bytes(4, "little")
    data[60:64] = crc(data[:60]).to_bytes(4, "little")
    data[-64:-32] = hashlib.sha256(data[:-64]).digest()
    data[-4:] = crc(data[-64:-4]).to_bytes(4, "little")
    return bytes(data)


U16, U32, U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1
ABSURD = {
    "file_bytes": huge_entry(16, U64, 8),
    "section_count": huge_entry(24, U32, 4),
    "section bytes": huge_entry(64 + 16, U64, 8),
    "section offset": huge_entry(64 + 8, U64 - 63, 8),
    "layers": with_rows("MODL", lambda r: replace(r, layer_count=U32)),
    "buffers": with_rows("MODL", lambda r: replace(r, buffer_count=U32)),
    "channels": with_rows("MODL", lambda r: replace(r, channel_count=U32)),
    "weight_bytes": with_rows("MODL", lambda r: replace(r, weight_bytes=U64)),
    "levels": with_rows("MODL", lambda r: replace(r, levels=U32)),
    "frame": with_rows("VECT", lambda r: replace(r, width=U32, height=U32)),
    "frame of 12 GB": with_rows("VECT", lambda r: replace(r, width=U16, height=U16)),
    "crcs": with_rows("VECT", lambda r: replace(r, layer_count=U32)),
    "block": with_rows("CHIP", lambda r: replace(r, channel_block=2**31)),
    "alignment": with_rows("CHIP", lambda r: replace(r, alignment=2**31)),
    "buffer channels": with_rows("BUFS", lambda r: replace(r, channels=U16), (0, 1, 2)),
    "out_channels": with_rows("LAYR", lambda r: replace(r, out_channels=U32), (0, 3)),
    "in_channels": with_rows("LAYR", lambda r: replace(r, in_channels=U32), (0, 3)),
    "weights of a layer": with_rows("LAYR", lambda r: replace(r, weight_bytes=U64), (0,)),
    "weights far away": with_rows("LAYR", lambda r: replace(r, weight_offset=U64 - 63), (0,)),
    "a view of 65535": with_rows(
        "LAYR", lambda r: replace(r, input=ViewRecord(1, 0, U16, U16, 0, 0, 0)), (1,)
    ),
    "rows of layers": many_rows("LAYR", ROWS_MAX + 1),
    "rows of buffers": many_rows("BUFS", 2**16),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_numbers_are_refused_before_memory_is_asked_for(name: str) -> None:
    data = ABSURD[name]
    tracemalloc.start()
    try:
        assert refusals(data) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 8 * len(data)


def test_meta_of_any_depth_is_refused() -> None:
    deep = [
        (kind, required, b'{"a":' + b"[" * 200_000 if kind == "META" else content)
        for kind, required, content in taken_apart(BUNDLE)
    ]
    with pytest.raises(ValueError, match="META must be"):
        read_bundle(container.pack_container(deep))


def test_an_arena_beyond_all_memory_is_refused_when_it_is_run() -> None:
    """A larger arena than the buffers need is lawful; a machine that has not so much says so."""
    data = with_rows("MODL", lambda r: replace(r, arena_bytes_per_cell=2**32 - 16))
    model = native().Model(data)
    image = np.zeros((2160, 3840, 3), np.uint8)
    with pytest.raises(ValueError, match="arena: it must fit the memory"):
        model.run(image)
