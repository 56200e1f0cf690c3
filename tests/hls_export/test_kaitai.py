"""docs/bundle.ksy, compiled by kaitai-struct-compiler, reads a bundle as our own reader does.

Needs node with the compiler's npm package, kaitaistruct and PyYAML; without them the tests are
skipped and say how to install what is missing.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from strategies import STYLES, TINY, Style, random_graph

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.compression import compress
from hls_export.export import BUNDLE, export
from hls_export.layer_table import (
    PackedWeightsRecord,
    PlanGroupRecord,
    PlanItemRecord,
    PlanRecord,
    PlanSpillRecord,
    PlanWindowRecord,
    Record,
    StreamRecord,
)
from hls_export.npu import load_chip
from quant.contract import Op

kaitaistruct = pytest.importorskip("kaitaistruct", reason="needs: pip install kaitaistruct")
yaml = pytest.importorskip("yaml", reason="needs: pip install pyyaml")

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = ROOT / "docs" / "bundle.ksy"
COMPILE = Path(__file__).parent / "compile_ksy.js"
INSTALL = "npm install -g kaitai-struct-compiler"


@pytest.fixture(scope="module")
def parser() -> Any:
    """The class that the compiler makes of the description."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs node: apt install nodejs npm")
    modules = subprocess.run(
        ["npm", "root", "-g"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(modules, "kaitai-struct-compiler").is_dir():
        pytest.skip(f"needs kaitai-struct-compiler: {INSTALL}")
    result = subprocess.run(
        ["node", str(COMPILE)],
        input=json.dumps(yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8"))),
        env={**os.environ, "NODE_PATH": modules},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = {}
    exec(compile(result.stdout, str(DESCRIPTION), "exec"), found)
    return found["StarlightBundle"]


def assert_same(parsed: Any, record: Record) -> None:
    """Every field of the record, by name; reserved bytes have none on either side."""
    for place in record.places():
        got, expected = getattr(parsed, place.name), getattr(record, place.name)
        if isinstance(expected, Record):
            assert_same(got, expected)
        else:
            assert (got.encode() if isinstance(got, str) else got) == expected, place.name


@pytest.mark.parametrize("style", STYLES)
def test_every_field_is_ours(parser: Any, style: Style) -> None:
    data = pack_bundle(random_graph(1, TINY, style), load_chip("reference"))
    bundle, parsed = read_bundle(data), parser.from_bytes(data)
    assert_same(parsed.header, container.read_header(data))
    assert data[-64:-32] == parsed.trailer.sha256
    sections = {entry.kind: entry for entry in parsed.table}
    assert [(e.kind, e.flags, e.offset, e.crc32) for e in parsed.table] == [
        (s.kind, int(s.required), s.offset, s.crc32) for s in bundle.sections
    ]
    assert_same(sections["MODL"].content, bundle.model)
    assert_same(sections["CHIP"].content, bundle.chip)
    for kind, rows in (
        ("BUFS", bundle.buffers),
        ("LAYR", bundle.layers),
        ("CHAN", bundle.channels),
    ):
        assert len(sections[kind].content.rows) == len(rows)
        for row, record in zip(sections[kind].content.rows, rows, strict=True):
            assert_same(row, record)
    assert sections["STRS"].content.bytes == bundle.strings
    assert sections["WGHT"].content == bundle.weights
    vectors = sections["VECT"].content
    assert tuple(vectors.layer_crc32) == bundle.vectors.layer_crc32
    assert vectors.input == bundle.vectors.input.tobytes()
    assert vectors.output == bundle.vectors.output.tobytes()
    assert json.loads(sections["META"].content) == bundle.meta


def test_every_field_of_a_stripe_plan_is_ours(parser: Any, tmp_path: Path) -> None:
    bundle = export(random_graph(1), tmp_path)
    parsed = parser.from_file(str(tmp_path / BUNDLE))
    (data,) = (s.data for s in bundle.sections if s.kind == "PLAN")
    (tables,) = (entry.content for entry in parsed.table if entry.kind == "PLAN")
    parts = (
        (PlanRecord, [tables.head]),
        (PlanGroupRecord, tables.groups),
        (PlanWindowRecord, tables.windows),
        (PlanItemRecord, tables.items),
        (PlanSpillRecord, tables.spills),
    )
    at = 0
    for record, rows in parts:
        for row in rows:
            assert_same(row, record.unpack(data[at : at + record.SIZE], "plan"))
            at += record.SIZE
    assert at == len(data)


def test_compressed_weights_are_ours(parser: Any) -> None:
    packed = compress(pack_bundle(random_graph(1), load_chip("reference")))
    (data,) = (s.data for s in container.read_container(packed, "WRIC") if s.kind == "WRIC")
    (found,) = (e.content for e in parser.from_bytes(packed).table if e.kind == "WRIC")
    assert_same(found, PackedWeightsRecord.unpack(data[:64], "WRIC"))
    for index, row in enumerate(found.streams):
        at = 64 + 16 * index
        record = StreamRecord.unpack(data[at : at + 16], "stream")
        assert_same(row, record)
        assert row.codes == data[record.offset : record.offset + record.bytes]


def test_an_unknown_section_is_bytes(parser: Any) -> None:
    sections = container.read_container(pack_bundle(random_graph(1), load_chip("reference")))
    content = [(s.kind, s.required, s.data) for s in sections]
    data = container.pack_container([*content, ("NEXT", False, b"later")])
    assert parser.from_bytes(data).table[-1].content == b"later"


def test_another_magic_is_refused(parser: Any) -> None:
    data = bytearray(pack_bundle(random_graph(1), load_chip("reference")))
    data[0] ^= 1
    with pytest.raises(kaitaistruct.ValidationNotEqualError):
        parser.from_bytes(bytes(data))


def test_operations_and_records_are_the_tables(parser: Any) -> None:
    assert {op.name.upper(): op.value for op in parser.Op} == {op.name: op.value for op in Op}
    text = DESCRIPTION.read_text(encoding="utf-8")
    described = set(re.findall(r"^  ([a-z_]+):$", text, re.MULTILINE))
    names = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", r.__name__.removesuffix("Record")).lower()
        for r in Record.__subclasses__()
    }
    assert names - {"vectors"} <= described
