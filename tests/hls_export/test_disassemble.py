"""disassemble: every record at its place, with every field; read back from the listing."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from strategies import TINY, graphs, random_graph

from hls_export.__main__ import main
from hls_export.bundle import Bundle, pack_bundle, read_bundle
from hls_export.disassemble import disassemble
from hls_export.layer_table import Record, ViewRecord
from hls_export.npu import load_chip
from hls_export.plan_text import plan_lines
from hls_export.planner import Options, plan_stripes
from quant.contract import Op
from quant.integer_graph import IntegerGraph

REFERENCE = load_chip("reference")
BUNDLE = pack_bundle(random_graph(1, TINY), REFERENCE)


def listed(listing: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Title of a record -> its place and its flat fields as they are printed."""
    found = {}
    for line in listing.splitlines():
        match = re.fullmatch(r"([0-9a-f]{8})  ([A-Z]{4}(?:\[\d+\])?)  (.*=.*)", line)
        if match:
            fields = dict(part.split("=") for part in match[3].split(" ") if "=" in part)
            found[match[2]] = (int(match[1], 16), fields)
    return found


def assert_listed(listing: str, data: bytes, title: str, record: Record) -> None:
    """The record lies where the listing says, and every flat field reads as it is."""
    place, fields = listed(listing)[title]
    assert type(record).unpack(data[place : place + record.SIZE], title) == record
    for field in record.places():
        value = getattr(record, field.name)
        if isinstance(value, ViewRecord) or field.name == "name":
            continue
        printed = fields.pop(field.name)
        if field.name == "op":
            assert printed == Op(value).name
        else:
            assert int(printed, 16 if field.name.endswith("crc32") else 10) == value
    assert fields == {}


@given(graphs(max_levels=2))
def test_every_record_is_at_its_place_with_every_field(graph: IntegerGraph) -> None:
    data = pack_bundle(graph, REFERENCE)
    bundle = read_bundle(data)
    listing = disassemble(bundle)
    assert_listed(listing, data, "MODL", bundle.model)
    assert_listed(listing, data, "CHIP", bundle.chip)
    for kind, rows in (
        ("BUFS", bundle.buffers), ("LAYR", bundle.layers), ("CHAN", bundle.channels)
    ):  # fmt: skip
        for index, record in enumerate(rows):
            assert_listed(listing, data, f"{kind}[{index}]", record)
    assert all(line == line.rstrip() for line in listing.splitlines())
    assert listing.endswith("\n")


def paragraph(bundle: Bundle, layer: str) -> list[str]:
    blocks = disassemble(bundle).split("\n\n")
    (found,) = [block for block in blocks if f"]  {layer} op=" in block]
    return found.splitlines()


def test_a_layer_says_what_it_does_with_its_addresses() -> None:
    bundle = read_bundle(BUNDLE)
    up = bundle.layers[[bundle.text(layer.name) for layer in bundle.layers].index("decoder.0.up")]
    text = "\n".join(paragraph(bundle, "decoder.0.up"))
    source, output, join = (
        f"[{view.address_per_cell} * cells + (y * (Wp >> {view.level}) + x) * "
        f"{view.pixel_stride} + {view.channel_offset} + c]"
        for view in (up.input, up.output, up.join)
    )
    assert f"acc = bias + sum(q * w) around (y, x) of {source}" in text
    assert f"+ q * 2^join_shift of {join}" in text
    assert f"{output} at (2y + dy, 2x + dx) = sat8(" in text
    weights = next(s for s in bundle.sections if s.kind == "WGHT").offset + up.weight_offset
    assert f"{weights:08x}  WGHT  int8 [2][1][1][6][8] crc32 {up.weight_crc32:08x}" in text
    down = "\n".join(paragraph(bundle, "encoder.0.down"))
    assert "sum(q[3x3] * w) around (2y, 2x) of" in down
    assert "join    -" in down
    assert ", at least 0" in "\n".join(paragraph(bundle, "middle.dense.conv2"))
    tail = paragraph(bundle, "tail")
    assert "          out = sat_u8(pixel - floor((acc + 2^(s-1)) / 2^s))" in tail
    assert "          output  -" in tail
    assert "of the image" in "\n".join(paragraph(bundle, "head"))


def test_a_plan_says_what_each_tile_does() -> None:
    graph = random_graph(1, TINY)
    plan = plan_stripes(graph, REFERENCE, Options(frame=(20, 30)))
    listing = disassemble(read_bundle(pack_bundle(graph, REFERENCE, plan))).splitlines()
    start = next(index for index, line in enumerate(listing) if line.endswith("  PLAN"))
    assert listing[start + 1 :] == list(plan_lines(plan))
    assert not any(line.endswith("  PLAN") for line in disassemble(read_bundle(BUNDLE)).split("\n"))


def test_command_prints_or_writes(tmp_path: Path) -> None:
    file, out = tmp_path / "model.slb", tmp_path / "model.txt"
    file.write_bytes(BUNDLE)
    shown = CliRunner().invoke(main, ["disassemble", str(file)])
    assert (shown.exit_code, shown.stdout) == (0, disassemble(read_bundle(BUNDLE)))
    written = CliRunner().invoke(main, ["disassemble", str(file), "--out", str(out)])
    assert (written.exit_code, written.stdout) == (0, "")
    assert out.read_text(encoding="utf-8") == shown.stdout


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "bundle: file must exist, got"),
        (b"", [], "size must be at least 128, got 0"),
        (BUNDLE[:-64], [], "bundle: size must be"),
        (BUNDLE, ["--out", "absent/x.txt"], "folder must exist"),
    ],
)
def test_command_refuses_in_one_line(
    tmp_path: Path, content: bytes | None, arguments: list[str], message: str
) -> None:
    if content is not None:
        (tmp_path / "model.slb").write_bytes(content)
    result = CliRunner().invoke(main, ["disassemble", str(tmp_path / "model.slb"), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
