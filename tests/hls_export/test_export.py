"""The exported files: each is read back and says what the bundle says; a failure leaves none."""

import dataclasses
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_equality import assert_same_graph
from hypothesis import given
from hypothesis import strategies as st
from native_build import C99, CXX17, build_program
from strategies import EDGE, graphs, random_graph, seeds

from hls_export import export as exporting
from hls_export.bundle import Bundle, pack_bundle, read_bundle
from hls_export.c_header import STRUCTS, c_header, c_string
from hls_export.document import bundle_document, graph_from_document, to_json
from hls_export.export import export, layer_rows, pack_csv, read_csv, read_layers
from hls_export.layer_table import Record
from hls_export.npu import load_chip
from hls_export.planner import plan_stripes
from hls_export.schedule import schedule
from quant.contract import Op
from quant.graph_files import save_graph
from quant.integer_graph import IntegerGraph

FILES = sorted(["layers.csv", "layers.json", "model.h", "model.slb", "weights.bin"])
REFERENCE = load_chip("reference")


def test_files_stand_beside_the_bundle_and_agree_with_it(tmp_path) -> None:
    graph = random_graph(4, EDGE)
    save_graph(graph, tmp_path / "graph.json")
    bundle = export(tmp_path / "graph.json", tmp_path / "out" / "deep")
    out = tmp_path / "out" / "deep"
    assert sorted(os.listdir(out)) == FILES
    stripes = plan_stripes(graph, REFERENCE)
    assert (out / "model.slb").read_bytes() == pack_bundle(graph, REFERENCE, stripes)
    assert (out / "weights.bin").read_bytes() == bundle.weights
    assert_same_graph(read_bundle(out / "model.slb").graph(), graph)
    assert_same_graph(read_layers(out), graph)
    assert (out / "model.h").read_text(encoding="ascii") == c_header(bundle)
    assert read_csv(out / "layers.csv") == layer_rows(bundle)


@given(graphs())
def test_document_and_weights_rebuild_the_graph(graph: IntegerGraph) -> None:
    bundle = read_bundle(pack_bundle(graph, REFERENCE))
    text = to_json(bundle_document(bundle))
    assert json.loads(text) == bundle_document(bundle)
    assert_same_graph(graph_from_document(json.loads(text), bundle.weights), graph)


@given(graphs())
def test_table_comes_back_and_adds_up(graph: IntegerGraph) -> None:
    bundle = read_bundle(pack_bundle(graph, REFERENCE))
    rows = layer_rows(bundle, (31, 50))
    assert len(rows) == len(graph.layers)
    for row, layer, step in zip(rows, graph.layers, schedule(graph, 8, 31, 50), strict=True):
        assert row["name"] == layer.name
        assert Op[str(row["op"])] is layer.op
        assert row["macs"] == step.macs
        assert row["output_bytes"] == step.output_bytes
        assert row["input"] == f"{layer.input.buffer}[{layer.input.offset}:{layer.input.end}]"


def test_csv_of_awkward_names_comes_back(tmp_path) -> None:
    graph = random_graph(0)
    first, *rest = graph.layers
    awkward = dataclasses.replace(graph, layers=(dataclasses.replace(first, name='a,"b"\n'), *rest))
    rows = layer_rows(read_bundle(pack_bundle(awkward, REFERENCE)))
    (tmp_path / "layers.csv").write_text(pack_csv(rows), encoding="utf-8", newline="")
    assert read_csv(tmp_path / "layers.csv") == rows


def test_weights_and_document_of_different_graphs_are_refused(tmp_path) -> None:
    export(random_graph(0), tmp_path / "a")
    export(random_graph(1), tmp_path / "b")
    os.replace(tmp_path / "a" / "weights.bin", tmp_path / "b" / "weights.bin")
    with pytest.raises(ValueError, match="head weight_crc32 must be that of its weights"):
        read_layers(tmp_path / "b")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arithmetic": "dyadic"}', "{"])
def test_document_that_is_none_is_refused(tmp_path, text: str) -> None:
    export(random_graph(0), tmp_path)
    (tmp_path / "layers.json").write_text(text, encoding="ascii")
    with pytest.raises(ValueError, match=r"layers\.json: "):
        read_layers(tmp_path)


def places(node: object) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON document."""
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from places(node[key])


@given(seeds, st.sampled_from([None, -1, 0, 1.5, 10**30, "x", "head", [], {}, [1], True]))
def test_document_with_one_wrong_value_is_refused_or_lawful(seed: int, value: object) -> None:
    bundle = read_bundle(pack_bundle(random_graph(seed % 3), REFERENCE))
    document = bundle_document(bundle)
    container, key = random.Random(seed).choice(list(places(document)))
    container[key] = value
    try:
        graph_from_document(document, bundle.weights)
    except ValueError as error:
        refusal = str(error)
    else:
        return
    assert " must " in refusal


def test_document_of_another_arithmetic_is_refused() -> None:
    bundle = read_bundle(pack_bundle(random_graph(0), REFERENCE))
    document = bundle_document(bundle) | {"arithmetic_version": 2}
    with pytest.raises(ValueError, match="arithmetic_version must be 1, got 2"):
        graph_from_document(document, bundle.weights)


# model.h, compiled: a program prints every number and string of its tables.


def printer(bundle: Bundle) -> str:
    """A C program that prints what `expected_lines` lists."""
    lines = ['#include "model.h"', "#include <stdio.h>", "int main(void) {", "  int i;"]
    for name in CONSTANTS:
        lines.append(f'  printf("%llu\\n", (unsigned long long){name});')
    lines.append('  printf("%s\\n%s\\n", MODEL_NAME, MODEL_CHIP);')
    for array, count, rows in tables(bundle):
        lines.append(f"  for (i = 0; i < {count}; i++) {{")
        for path, is_text in leaves(type(rows[0])):
            value = f"{array}[i].{path}"
            lines.append(
                f'    printf("%s\\n", {value});'
                if is_text
                else f'    printf("%lld\\n", (long long){value});'
            )
        lines.append("  }")
    return "\n".join([*lines, "  return 0;", "}"])


CONSTANTS = {
    "MODEL_LEVELS": lambda b: b.model.levels,
    "MODEL_GRID": lambda b: b.graph().grid,
    "MODEL_CHANNEL_BLOCK": lambda b: b.model.channel_block,
    "MODEL_ALIGNMENT": lambda b: b.chip.alignment,
    "MODEL_MAX_WIDTH": lambda b: b.chip.max_width,
    "MODEL_MAX_HEIGHT": lambda b: b.chip.max_height,
    "MODEL_CHIP_CAPABILITY_CRC32": lambda b: b.chip.capability_crc32,
    "MODEL_ARENA_BYTES_PER_CELL": lambda b: b.plan.arena,
    "MODEL_WEIGHT_BYTES": lambda b: len(b.weights),
    "MODEL_FILE_BYTES": lambda b: b.bytes,
    "MODEL_WGHT_OFFSET": lambda b: next(s.offset for s in b.sections if s.kind == "WGHT"),
    "MODEL_VECT_BYTES": lambda b: next(len(s.data) for s in b.sections if s.kind == "VECT"),
}


def tables(bundle: Bundle) -> list[tuple[str, str, tuple[Record, ...]]]:
    return [
        ("MODEL_BUFFERS", "MODEL_BUFFER_COUNT", bundle.buffers),
        ("MODEL_LAYERS", "MODEL_LAYER_COUNT", bundle.layers),
        ("MODEL_CHANNELS", "MODEL_CHANNEL_COUNT", bundle.channels),
    ]


def leaves(record: type[Record]) -> list[tuple[str, bool]]:
    """(path of a number or string, whether it is a string) of every field."""
    found = []
    for place in record.places():
        if place.nested:
            found += [(f"{place.name}.{inner}", text) for inner, text in leaves(place.nested)]
        else:
            found.append((place.name, place.name == "name"))
    return found


def expected_lines(bundle: Bundle) -> list[str]:
    lines = [str(value(bundle)) for value in CONSTANTS.values()]
    lines += [bundle.text(bundle.model.name), bundle.text(bundle.chip.name)]
    for _, _, rows in tables(bundle):
        for row in rows:
            for path, is_text in leaves(type(row)):
                value = row
                for name in path.split("."):
                    value = getattr(value, name)
                lines.append(bundle.text(value) if is_text else str(value))
    return lines


@pytest.mark.parametrize(("compiler", "flags"), [("gcc", C99), ("g++", (*CXX17, "-xc++"))])
@pytest.mark.parametrize("style", ["natural", "edges"])
def test_header_compiles_alone_and_holds_the_numbers(
    tmp_path, compiler: str, flags: tuple[str, ...], style
) -> None:
    graph = dataclasses.replace(random_graph(8, style=style), name='a "quoted" \\ name?? é')
    bundle = export(graph, tmp_path)
    (tmp_path / "printer.c").write_text(printer(bundle), encoding="ascii")
    program = build_program([tmp_path / "printer.c"], [tmp_path], flags, compiler=compiler)
    printed = subprocess.run([program], capture_output=True, check=True).stdout.decode()
    assert printed.splitlines() == expected_lines(bundle)


def test_header_covers_every_field_of_its_records() -> None:
    assert len(STRUCTS) == 5
    assert len(leaves(next(r for r in STRUCTS if r.__name__ == "LayerRecord"))) == 8 + 3 * 7 + 6 + 1


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("plain", '"plain"'),
        ('"\\', '"\\042\\134"'),
        ("??/", '"\\077\\077/"'),
        ("é", '"\\303\\251"'),
    ],
)
def test_string_literals_are_plain_ascii(text: str, literal: str) -> None:
    assert c_string(text) == literal


# Failures.


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_failed_export_leaves_the_earlier_files_as_they_were(tmp_path, monkeypatch) -> None:
    export(random_graph(0), tmp_path)
    before = snapshot(tmp_path)
    strict = REFERENCE.capability.model_copy(update={"accumulator_bits": 16})
    with pytest.raises(ValueError, match="accumulator width must be at most 16"):
        export(random_graph(1), tmp_path, REFERENCE.model_copy(update={"capability": strict}))
    assert snapshot(tmp_path) == before

    full_disk = 3
    written: list[Path] = []
    write = Path.write_bytes

    def write_until_full(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == full_disk:
            write(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        export(random_graph(1), tmp_path)
    assert snapshot(tmp_path) == before


def test_second_export_replaces_the_first(tmp_path) -> None:
    export(random_graph(0), tmp_path)
    export(random_graph(1), tmp_path)
    assert sorted(os.listdir(tmp_path)) == FILES
    assert_same_graph(read_layers(tmp_path), random_graph(1))


def test_out_that_is_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(NotADirectoryError, match="export: out must be a folder"):
        export(random_graph(0), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_files_are_the_same_every_time(tmp_path) -> None:
    for name in ("a", "b"):
        export(random_graph(0), tmp_path / name)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_frame_of_the_table_is_asked_for(tmp_path) -> None:
    export(random_graph(0), tmp_path, "reference", (16, 32))
    head = read_csv(tmp_path / exporting.TABLE)[0]
    assert (head["height"], head["width"], head["input_bytes"]) == (16, 32, 16 * 32 * 3)
    assert np.prod([16, 32, 4, 3, 9]) == head["macs"]
