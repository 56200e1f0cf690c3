"""docs/FORMAT.md says what the code does: its tables are compared, its examples run."""

import doctest
import re
from pathlib import Path

import pytest
from strategies import random_graph

from hls_export import container, layer_table
from hls_export.bundle import pack_bundle
from hls_export.layer_table import Record
from hls_export.npu import load_chip
from quant.contract import Op

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "FORMAT.md").read_text(encoding="utf-8")
TYPES = {"u8": "B", "i8": "b", "u16": "H", "u32": "I", "i32": "i", "u64": "Q"}
RECORDS = {
    name: value
    for name, value in vars(layer_table).items()
    if isinstance(value, type) and issubclass(value, Record) and value is not Record
}


def rows(text: str) -> list[list[str]]:
    """Cells of the first table of a text, without its title."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_stands_in_the_document(name: str) -> None:
    title = re.search(rf"^### .*`{name}`, (\d+) bytes.*\n", TEXT, re.MULTILINE)
    assert title is not None
    record = RECORDS[name]
    assert int(title[1]) == record.SIZE
    documented = []
    for offset, kind, field, _ in rows(TEXT[title.end() :]):
        if kind == "view":
            code = "16s"
        else:
            code = TYPES.get(kind) or re.sub(r"char\[(\d+)\]", r"\1s", kind)
        documented.append((int(offset), code, field))
    assert documented == [(place.offset, place.code, place.name) for place in record.places()]


def test_every_section_kind_and_op_stands_in_the_document() -> None:
    listed = {row[0]: row[1] for row in rows(TEXT[TEXT.index("| kind | required") :])}
    assert listed == {
        **dict.fromkeys(container.KINDS_REQUIRED, "yes"),
        "MULT": "yes, in multiplier arithmetic alone",
        "WRIC": "yes, in the place of WGHT",
        **dict.fromkeys(container.KINDS_OPTIONAL, "no"),
    }
    ops = [(int(row[0]), row[1]) for row in rows(TEXT[TEXT.index("| op | name") :])]
    assert ops == [(op.value, op.name) for op in Op]


def test_every_status_of_the_runtime_stands_in_the_document() -> None:
    header = (ROOT / "csrc" / "runtime" / "starlight_runtime.h").read_text(encoding="utf-8")
    enum = re.search(r"typedef enum sl_status \{(.*?)\} sl_status;", header, re.DOTALL)
    assert enum is not None
    statuses = [name for name in re.findall(r"\bSL_\w+", enum[1]) if name != "SL_STATUS_COUNT"]
    assert [row[0] for row in rows(TEXT[TEXT.index("| status |") :])] == statuses


def test_examples_give_what_they_say() -> None:
    data = pack_bundle(random_graph(0), load_chip("reference"))
    test = doctest.DocTestParser().get_doctest(TEXT, {"data": data}, "FORMAT.md", None, 0)
    assert len(test.examples) > 8
    assert doctest.DocTestRunner().run(test).failed == 0
