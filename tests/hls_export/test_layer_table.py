"""Records: every field at its place, reserved bytes zero, numbers that do not fit refused."""

from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hls_export import layer_table
from hls_export.layer_table import At, Record, differing_field, pack_table, unpack_table

RECORDS = [
    value
    for value in vars(layer_table).values()
    if isinstance(value, type) and issubclass(value, Record) and value is not Record
]


def records(record: type[Record]) -> st.SearchStrategy[Record]:
    """Any values that fit."""
    fields = {}
    for place in record.places():
        bits = 8 * place.size
        if place.nested:
            fields[place.name] = records(place.nested)
        elif place.code.endswith("s"):
            fields[place.name] = st.binary(min_size=place.size, max_size=place.size)
        elif place.code.islower():
            fields[place.name] = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        else:
            fields[place.name] = st.integers(0, 2**bits - 1)
    return st.builds(record, **fields)


@pytest.mark.parametrize("record", RECORDS)
@given(data=st.data())
def test_pack_and_unpack_are_inverse(record: type[Record], data: st.DataObject) -> None:
    rows = tuple(data.draw(st.lists(records(record), max_size=3)))
    packed = pack_table(rows)
    assert len(packed) == record.SIZE * len(rows)
    assert unpack_table(record, packed, "X") == rows


@pytest.mark.parametrize("record", RECORDS)
def test_every_byte_is_of_a_field_or_reserved(record: type[Record]) -> None:
    covered = set()
    for place in record.places():
        bytes_of = set(range(place.offset, place.offset + place.size))
        assert not bytes_of & covered
        covered |= bytes_of
    for at in range(record.SIZE):
        data = bytearray(record.SIZE)
        data[at] = 1
        if at in covered and not any(place.nested for place in record.places()):
            assert record.unpack(bytes(data), "X").pack() == data
        elif at not in covered:
            with pytest.raises(ValueError, match=f"X reserved byte {at} must be 0, got 1"):
                record.unpack(bytes(data), "X")


@pytest.mark.parametrize("record", RECORDS)
def test_fields_lie_at_multiples_of_their_size(record: type[Record]) -> None:
    """So that a C compiler places them there without packing."""
    for place in record.places():
        if not place.nested and not place.code.endswith("s"):
            assert place.offset % place.size == 0


def test_reserved_byte_of_a_nested_record_is_named() -> None:
    data = bytearray(layer_table.LayerRecord.SIZE)
    data[32 + 14] = 9
    with pytest.raises(ValueError, match=r"LAYR\[1\] output reserved byte 14 must be 0, got 9"):
        unpack_table(layer_table.LayerRecord, bytes(128) + bytes(data), "LAYR")


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, "1"])
def test_number_that_does_not_fit_is_refused_by_name(value: object) -> None:
    record = layer_table.VectorsRecord(width=value, height=1, layer_count=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="VectorsRecord width must fit 32 bits"):
        record.pack()


def test_table_of_a_broken_size_is_refused() -> None:
    with pytest.raises(ValueError, match="CHAN size must be a multiple of 8, got 9"):
        unpack_table(layer_table.ChannelRecord, bytes(9), "CHAN")


def test_overlapping_fields_are_refused() -> None:
    @dataclass(frozen=True)
    class Overlapping(Record, size=4):
        one: Annotated[int, At(0, "I")]
        two: Annotated[int, At(2, "H")]

    with pytest.raises(ValueError, match=r"two must lie in 4\.\.4, got 2"):
        Overlapping.places()


def test_differing_field_names_nested_fields_by_path() -> None:
    view = layer_table.ViewRecord(1, 2, 3, 4, 5, 6, 7)
    zeros = {place.name: 0 for place in layer_table.LayerRecord.places()}
    one = layer_table.LayerRecord(**{**zeros, "input": view, "output": view, "join": view})
    other = layer_table.LayerRecord(
        **{**zeros, "input": view, "output": view, "join": layer_table.NO_VIEW}
    )
    assert differing_field(one, other) == "join.buffer"
