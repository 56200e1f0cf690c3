"""The C structs of the bundle against the Python table, field by field."""

import re
import subprocess
from pathlib import Path

import native_build
import pytest

from hls_export import container, layer_table, npu, tables
from hls_export.layer_table import Record

HEADER = native_build.CONTRACT / "bundle_format.h"
RECORDS = Record.__subclasses__()


def struct_name(record: type[Record]) -> str:
    """LayerRecord -> sl_layer_record."""
    words = re.findall(r"[A-Z][a-z]+", record.__name__)
    return "sl_" + "_".join(word.lower() for word in words)


def evaluate(expressions: list[str], folder: Path) -> list[int]:
    """Integers of C expressions over bundle_format.h."""
    prints = "\n".join(f'    printf("%lld\\n", (long long)({e}));' for e in expressions)
    source = folder / "expressions.c"
    source.write_text(
        f'#include <stdio.h>\n#include "bundle_format.h"\nint main(void)\n{{\n{prints}\n'
        "    return 0;\n}\n"
    )
    program = native_build.build_program([source], [native_build.CONTRACT], ["-std=gnu99"])
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return [int(line) for line in printed.split()]


def test_structs_and_table_agree(tmp_path: Path) -> None:
    expected: dict[str, int] = {}
    for record in RECORDS:
        struct = struct_name(record)
        expected[f"sizeof({struct})"] = record.SIZE
        for place in record.places():
            expected[f"offsetof({struct}, {place.name})"] = place.offset
            expected[f"sizeof((({struct} *)0)->{place.name})"] = place.size
            if place.nested is None and not place.code.endswith("s"):
                signed = f"(({struct} *)0)->{place.name}"
                expected[f"(__typeof__({signed}))-1 < 0"] = int(place.code.islower())
    got = evaluate(list(expected), tmp_path)
    assert dict(zip(expected, got, strict=True)) == expected


def test_every_struct_has_a_record() -> None:
    structs = set(re.findall(r"^\} (sl_\w+);", HEADER.read_text(), re.MULTILINE))
    assert structs == {struct_name(record) for record in RECORDS}


def test_constants_agree(tmp_path: Path) -> None:
    expected = {
        "SL_FORMAT_MAJOR": container.FORMAT_MAJOR,
        "SL_FORMAT_MAJOR_FIRST": min(container.FORMAT_MAJORS),
        "SL_FORMAT_MINOR": max(container.ADDED_IN.values()),
        "SL_SECTION_ALIGNMENT": container.ALIGNMENT,
        "SL_SECTION_REQUIRED": container.REQUIRED,
        "SL_CHANNEL_BLOCK_MAX": npu.LAYOUT_MAX,
        "SL_ROWS_MAX": layer_table.ROWS_MAX,
        "SL_ARITHMETIC_DYADIC": tables.ARITHMETIC_IDS["dyadic"],
        "SL_ARITHMETIC_MULTIPLIER": tables.ARITHMETIC_IDS["multiplier"],
        "SL_BUFFER_ACTIVATION": tables.KIND_ACTIVATION,
        "SL_BUFFER_IMAGE": tables.KIND_IMAGE,
        "SL_LAYER_RELU": tables.RELU,
        "SL_LAYER_JOIN": tables.HAS_JOIN,
        "SL_LAYER_OUTPUT": tables.HAS_OUTPUT,
    }
    magic = {f"(uint8_t[])SL_MAGIC_BYTES[{i}]": byte for i, byte in enumerate(container.MAGIC)}
    expected |= {f"({name})": value for name, value in magic.items()}
    assert dict(zip(expected, evaluate(list(expected), tmp_path), strict=True)) == expected


def test_section_kinds_agree() -> None:
    kinds = re.findall(r'^#define SL_KIND_\w+ "(....)"', HEADER.read_text(), re.MULTILINE)
    known = (container.KINDS_REQUIRED, container.KINDS_WHEN_NEEDED, container.KINDS_OPTIONAL)
    assert tuple(kinds) == sum(known, ())


def field_widths(record: type[Record]) -> str:
    """Widths of the fields in bytes, a digit each; reserved bytes single, as are those of bytes."""
    widths, end = "", 0
    for place in record.places():
        widths += "1" * (place.offset - end)
        end = place.offset + place.size
        if place.nested is not None:
            widths += field_widths(place.nested)
        else:
            widths += "1" * place.size if place.code.endswith("s") else str(place.size)
    return widths + "1" * (record.SIZE - end)


def test_big_endian_hosts_turn_the_fields_of_the_table() -> None:
    """SL_..._FIELDS of open.h, spread over the record, cut where the table cuts."""
    header = (native_build.ROOT / "csrc" / "runtime" / "open.h").read_text()
    macros = dict(re.findall(r"^#define SL_(\w+)_FIELDS\s+((?:.*\\\n)*.*)$", header, re.MULTILINE))

    def widths(name: str) -> str:
        parts = re.findall(r'"(\d+)"|SL_(\w+)_FIELDS', macros[name])
        return "".join(digits or widths(nested) for digits, nested in parts)

    def starts(text: str) -> set[int]:
        return {(sum(map(int, text[:i])), int(text[i])) for i in range(len(text)) if text[i] != "1"}

    for name in macros:
        record = next(r for r in RECORDS if struct_name(r) == f"sl_{name.lower()}_record")
        table, turned = starts(field_widths(record)), starts(widths(name))
        assert table <= turned, name
        # What is turned beyond the table is reserved, and zero either way.
        covered = {at for at, size in table for at in range(at, at + size)}
        assert all(at not in covered for at, size in turned - table)
    assert {struct_name(record) for record in RECORDS} == {
        f"sl_{name.lower()}_record" for name in [*macros, "trailer"]
    }


def test_a_moved_field_does_not_compile(tmp_path: Path) -> None:
    moved = tmp_path / "include"
    moved.mkdir()
    text = HEADER.read_text()
    swapped = text.replace("uint8_t op;\n    uint8_t flags;", "uint8_t flags;\n    uint8_t op;")
    assert swapped != text
    (moved / HEADER.name).write_text(swapped)
    source = tmp_path / "moved.c"
    source.write_text('#include "bundle_format.h"\nint main(void) { return 0; }\n')
    with pytest.raises(RuntimeError, match="sl_layer_record_op_at_4"):
        native_build.build_program([source], [moved])


def test_record_table_is_complete() -> None:
    assert {record.__name__ for record in RECORDS} == {
        name for name in vars(layer_table) if name.endswith("Record") and name != "Record"
    }
