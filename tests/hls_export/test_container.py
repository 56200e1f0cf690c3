"""The container alone: what it carries comes back, and whatever is not as written is refused."""

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hls_export import container
from hls_export.container import pack_container, read_container, read_table

CONTENT = {kind: kind.encode() * 3 for kind in container.KINDS_REQUIRED}


def pack(**changes: bytes | None) -> bytes:
    """A container of every required kind, some changed, dropped (None) or added (optional)."""
    content = {kind: data for kind, data in {**CONTENT, **changes}.items() if data is not None}
    return pack_container([(kind, kind in CONTENT, data) for kind, data in content.items()])


def sealed(data: bytearray) -> bytes:
    """The bytes with header and trailer made to agree with them again."""
    count = int.from_bytes(data[24:28], "little")
    data[32:36] = zlib.crc32(data[64 : 64 + 32 * count]).to_bytes(4, "little")
    data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
    data[-64:-32] = hashlib.sha256(data[:-64]).digest()
    data[-4:] = zlib.crc32(data[-64:-4]).to_bytes(4, "little")
    return bytes(data)


@given(st.dictionaries(st.sampled_from([*CONTENT, "META", "XYZ0", "zz !"]), st.binary()), st.data())
def test_sections_come_back_in_any_order(changes: dict[str, bytes], data: st.DataObject) -> None:
    content = {**CONTENT, **changes}
    order = data.draw(st.permutations(list(content)))
    packed = pack_container([(kind, kind in CONTENT, content[kind]) for kind in order])
    assert len(packed) % 64 == 0
    sections = read_container(packed)
    assert [section.kind for section in sections] == order
    for section in sections:
        assert section.data == content[section.kind]
        assert section.offset % 64 == 0
        assert packed[section.offset : section.offset + len(section.data)] == section.data


def test_header_says_what_the_format_says() -> None:
    """Against docs/FORMAT.md, without the record table."""
    packed = pack()
    assert packed[:8] == bytes([0x53, 0x4C, 0x42, 0x0D, 0x0A, 0x1A, 0x0A, 0x00])
    assert int.from_bytes(packed[8:10], "little") == 1
    assert int.from_bytes(packed[10:12], "little") == 0
    assert int.from_bytes(packed[16:24], "little") == len(packed)
    assert int.from_bytes(packed[24:28], "little") == 8
    assert int.from_bytes(packed[28:32], "little") == 64
    assert packed[64:68] == b"MODL"
    assert int.from_bytes(packed[72:80], "little") == 64 + 8 * 32
    assert int.from_bytes(packed[88:92], "little") == zlib.crc32(b"MODL" * 3)
    assert packed[-64:-32] == hashlib.sha256(packed[:-64]).digest()


@pytest.mark.parametrize("kind", container.KINDS_REQUIRED)
def test_missing_section_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ValueError, match=f"section {kind} must be present"):
        read_container(pack(**{kind: None}))


def test_unknown_sections_optional_skipped_required_refused() -> None:
    assert read_container(pack(NEWS=b"later"))[-1].kind == "NEWS"
    entries = [*((kind, True, data) for kind, data in CONTENT.items()), ("NEWS", True, b"later")]
    with pytest.raises(ValueError, match="required section NEWS must be one of MODL"):
        read_container(pack_container(entries))


def test_known_section_twice_or_with_the_wrong_flag_is_refused() -> None:
    entries = [(kind, True, data) for kind, data in CONTENT.items()]
    with pytest.raises(ValueError, match="section CHAN must occur once, got 2"):
        read_container(pack_container([*entries, ("CHAN", True, b"")]))
    with pytest.raises(ValueError, match="section META flags must be 0, got 1"):
        read_container(pack_container([*entries, ("META", True, b"")]))
    optional = [(kind, kind != "CHAN", data) for kind, data in CONTENT.items()]
    with pytest.raises(ValueError, match="section CHAN flags must be 1, got 0"):
        read_container(pack_container(optional))


def number(size: int, value: int) -> bytes:
    return value.to_bytes(size, "little")


FIRST = 64  # the entry of MODL: its data lie at 320, those of CHIP at 384


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [
        (0, b"PNG\r", "magic must be"),
        (8, number(2, 3), r"format version must be 1\.x or 2\.x, got 3"),
        (12, number(2, 2), "arithmetic version must be 1, got 2"),
        (14, number(2, 1), "header reserved byte 14 must be 0, got 1"),
        (36, b"\1", "header reserved byte 36 must be 0, got 1"),
        (16, number(8, 0), "size must be 0, got"),
        (16, number(8, 2**63), f"size must be {2**63}, got"),
        (24, number(4, 2**32 - 1), "section count must leave a table"),
        (24, number(4, 0), "offset must be 64, got"),
        (28, number(4, 128), "table offset must be 64, got 128"),
        (FIRST, b"M\xffDL", "section 0 kind must be four printable ASCII"),
        (FIRST, b"M\0DL", "section 0 kind must be four printable ASCII"),
        (FIRST + 4, number(4, 3), "section 0 flags must be 0 or 1, got 3"),
        (FIRST + 8, number(8, 321), "section 0 offset must be a multiple of 64"),
        (FIRST + 8, number(8, 2**64 - 64), "section 0 offset must be a multiple of 64 up to"),
        (FIRST + 8, number(8, 0), "section MODL offset must be 320, got 0"),
        (FIRST + 8, number(8, 448), "section MODL offset must be 320, got 448"),
        (FIRST + 16, number(8, 2**64 - 1), "section 0 size must end before the trailer"),
        (FIRST + 16, number(8, 11), "section MODL CRC-32 must be"),
        (FIRST + 16, number(8, 200), "section MODL CRC-32 must be"),
        (FIRST + 24, number(4, 0), "section MODL CRC-32 must be"),
        (FIRST + 28, number(4, 1), "section 0 reserved byte 28 must be 0, got 1"),
        (FIRST + 32 + 8, number(8, 320), "section CHIP offset must be 384, got 320"),
        (320 + 12, b"\1", "padding at 332 must be 0, got 1"),
        (-32, b"\1", "trailer reserved byte 32 must be 0, got 1"),
    ],
)
def test_each_field_is_held_even_when_every_crc_agrees(at: int, new: bytes, message: str) -> None:
    data = bytearray(pack())
    start = at % len(data)
    data[start : start + len(new)] = new
    with pytest.raises(ValueError, match=f"^bundle: .*{message}"):
        read_container(sealed(data))


def test_sha256_is_compared() -> None:
    data = bytearray(pack())
    data[-64] ^= 1
    data[-4:] = zlib.crc32(data[-64:-4]).to_bytes(4, "little")
    with pytest.raises(ValueError, match="SHA-256 must be"):
        read_container(bytes(data))


def test_later_minor_version_is_read() -> None:
    data = bytearray(pack())
    data[10] = 7
    assert len(read_container(sealed(data))) == 8


def test_table_of_a_damaged_file_still_says_which_section_is_damaged() -> None:
    data = bytearray(pack())
    data[320] ^= 0x10
    assert [section.kind for section in read_table(bytes(data)) if not section.intact] == ["MODL"]
