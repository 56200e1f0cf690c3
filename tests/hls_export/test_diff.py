"""diff: nothing for the same bundle, and each kind of change named in words."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, graphs, random_graph

from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.container import pack_container, read_container
from hls_export.diff import diff_bundles
from hls_export.npu import Chip, load_chip
from hls_export.planner import Options, plan_stripes
from quant.integer_graph import IntegerGraph
from quant.topology import Topology

REFERENCE = load_chip("reference")
GRAPH = random_graph(1, TINY)
BUNDLE = pack_bundle(GRAPH, REFERENCE)


def chip(**changes: object) -> Chip:
    capability = REFERENCE.capability.model_copy(update=changes)
    return REFERENCE.model_copy(update={"capability": capability})


def with_layer(name: str, **changes: object) -> IntegerGraph:
    layers = [
        dataclasses.replace(layer, **changes) if layer.name == name else layer
        for layer in GRAPH.layers
    ]
    return dataclasses.replace(GRAPH, layers=tuple(layers))


def words(one: bytes, other: bytes) -> list[str]:
    return [str(entry) for entry in diff_bundles(read_bundle(one), read_bundle(other))]


def resealed(change: Callable[[list[tuple[str, bool, bytes]]], object]) -> bytes:
    sections = [(s.kind, s.required, s.data) for s in read_container(BUNDLE)]
    change(sections)
    return pack_container(sections)


def test_same_bundle_differs_in_nothing() -> None:
    assert words(BUNDLE, BUNDLE) == []


@given(graphs(max_levels=2), graphs(max_levels=2))
def test_no_difference_is_found_only_between_equal_bytes(
    one: IntegerGraph, other: IntegerGraph
) -> None:
    packed = [pack_bundle(graph, REFERENCE) for graph in (one, other)]
    assert (words(*packed) == []) == (packed[0] == packed[1])
    assert words(packed[0], packed[0]) == []


@given(st.integers(0, 2**32 - 1))
def test_one_number_of_a_layer_is_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = GRAPH.layers[int(rng.integers(len(GRAPH.layers)))]
    weight = layer.weight.copy()
    place = int(rng.integers(weight.size))
    step = -1 if weight.flat[place] > 0 else 1
    weight.flat[place] += step
    found = words(BUNDLE, pack_bundle(with_layer(layer.name, weight=weight), REFERENCE))
    assert f"layer {layer.name}: 1 of {weight.size} weights differ, by 1 at most" in found
    assert all(line.startswith((f"layer {layer.name}:", "vectors:")) for line in found)


def test_bias_and_the_vectors_that_follow() -> None:
    layer = GRAPH.layers[2]
    found = words(BUNDLE, pack_bundle(with_layer(layer.name, bias=layer.bias + 3000), REFERENCE))
    size = layer.bias.size
    assert f"layer {layer.name}: {size} of {size} biases differ, by 3000 at most" in found
    (layers,) = [line for line in found if "put out other bits" in line]
    assert layers.endswith(f"{layer.name} the first")


def test_another_chip_is_told_and_moves_the_layout() -> None:
    found = words(BUNDLE, pack_bundle(GRAPH, chip(channel_block=16, alignment=32)))
    assert "chip: channel_block 8 -> 16" in found
    assert "chip: alignment 16 -> 32" in found
    assert any(line.startswith("chip: capability_crc32 ") for line in found)
    assert any(line.startswith("layout: weight_offset of ") for line in found)
    assert any(line.startswith("section WGHT: bytes ") for line in found)
    assert not any("weights differ" in line for line in found)


def test_layers_of_one_side_and_other_widths() -> None:
    other = pack_bundle(random_graph(1, Topology((4, 6, 8), (2, 3, 4))), REFERENCE)
    found = words(BUNDLE, other)
    assert "model: levels 1 -> 2" in found
    assert "layer encoder.1.down: only in the second" in found
    assert "buffer decoder.1.dense: only in the second" in found
    assert "layer encoder.1.down: only in the first" in words(other, BUNDLE)
    wider = words(BUNDLE, pack_bundle(random_graph(1, Topology((5, 6), (2, 3))), REFERENCE))
    assert "layer head: weights 4x3x3x3 -> 5x3x3x3" in wider
    assert "layer head: output encoder.0.dense[0:4] -> encoder.0.dense[0:5]" in wider


def test_sections_that_no_reader_knows_and_their_order() -> None:
    one = resealed(lambda sections: sections.append(("NOTE", False, b"one")))
    two = resealed(lambda sections: sections.append(("NOTE", False, b"two")))
    assert "section NOTE: only in the second" in words(BUNDLE, one)
    assert words(one, two) == ["section NOTE: of an unknown kind, other bytes"]
    turned = words(BUNDLE, resealed(list.reverse))
    assert len(turned) == 1
    assert turned[0].startswith("sections: order MODL CHIP ")


def test_plans_are_compared_in_words() -> None:
    one, two = (
        pack_bundle(GRAPH, REFERENCE, plan_stripes(GRAPH, REFERENCE, Options(frame=frame)))
        for frame in ((20, 30), (40, 90))
    )
    assert words(one, one) == []
    assert any(line.startswith("plan: group 0 tile ") for line in words(one, two))
    assert "section PLAN: only in the second" in words(BUNDLE, one)


def test_meta_and_vectors_of_another_frame() -> None:
    other = resealed(lambda sections: sections.__setitem__(8, ("META", False, b'{"by": "hand"}')))
    found = words(BUNDLE, other)
    assert "meta: by none -> hand" in found
    smaller = words(BUNDLE, pack_bundle(GRAPH, chip(max_width=20)))
    assert "vectors: another frame, 37x21 -> 20x21" in smaller


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


def test_command_answers_as_diff_does(tmp_path: Path) -> None:
    one, other, report = tmp_path / "one.slb", tmp_path / "other.slb", tmp_path / "found.json"
    one.write_bytes(BUNDLE)
    other.write_bytes(pack_bundle(GRAPH, chip(alignment=32)))
    same = run(one, one, "--json", report)
    assert (same.exit_code, same.output) == (0, "")
    assert json.loads(report.read_text())["differences"] == []
    differs = run(one, other, "--json", report)
    assert differs.exit_code == 1
    assert differs.output.splitlines() == words(BUNDLE, other.read_bytes())
    document = json.loads(report.read_text())
    assert (document["first"], document["second"]) == ("one.slb", "other.slb")
    assert document["differences"][0].keys() == {"where", "what"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "bundle: file must exist, got"),
        (b"", "size must be at least 128, got 0"),
        (BUNDLE[:-1], "bundle: size must be"),
    ],
)
def test_command_refuses_what_is_no_bundle(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    good, bad = tmp_path / "good.slb", tmp_path / "bad.slb"
    good.write_bytes(BUNDLE)
    if content is not None:
        bad.write_bytes(content)
    for pair in ((good, bad), (bad, good)):
        result = run(*pair)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    result = run(good, good, "--json", tmp_path / "no" / "x.json")
    assert result.exit_code == 2
    assert "folder must exist" in result.stderr
