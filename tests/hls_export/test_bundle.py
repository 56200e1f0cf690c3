"""Bundles: the graph comes back, the bytes are the same every time, damage is always refused."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import zlib

import numpy as np
import pytest
from graph_equality import assert_same_graph
from hypothesis import given
from hypothesis import strategies as st
from strategies import EDGE, TINY, graphs, random_graph, seeds

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle, write_bundle
from hls_export.layer_table import BufferRecord, ChannelRecord, LayerRecord, ModelRecord, Record
from hls_export.memory import check_plan
from hls_export.npu import Chip, load_chip
from hls_export.vectors import vector_frame
from quant import interpret
from quant.contract import Op
from quant.integer_graph import IntegerGraph
from quant.topology import Topology

REFERENCE = load_chip("reference")
SMALLEST = Topology(widths=(1, 1), growths=(1, 1))


def chip(block: int, alignment: int) -> Chip:
    capability = REFERENCE.capability.model_copy(
        update={"channel_block": block, "alignment": alignment}
    )
    return REFERENCE.model_copy(update={"capability": capability, "name": f"b{block}-a{alignment}"})


powers = st.sampled_from([1, 2, 4, 8, 16, 32, 64])


@given(graphs(), powers, powers)
def test_graph_comes_back(graph: IntegerGraph, block: int, alignment: int) -> None:
    bundle = read_bundle(pack_bundle(graph, chip(block, alignment)))
    assert_same_graph(bundle.graph(), graph)
    check_plan(graph, bundle.plan)
    assert bundle.plan.alignment == bundle.chip.alignment == alignment
    assert bundle.model.channel_block == bundle.chip.channel_block == block
    assert bundle.text(bundle.chip.name) == f"b{block}-a{alignment}"
    for record, layer in zip(bundle.layers, graph.layers, strict=True):
        assert bundle.text(record.name) == layer.name
        assert record.op == layer.op
        rows = bundle.channels[record.channel_row : record.channel_row + record.out_channels]
        assert [row.bias for row in rows] == layer.bias.tolist()
        assert [row.shift for row in rows] == graph.shift(layer).tolist()
        assert [row.join_shift for row in rows] == graph.join_shift(layer).tolist()
        assert record.accumulator_bits == graph.accumulator_bits(layer)
        assert record.macs_per_cell == graph.macs(layer, graph.grid, graph.grid)
        assert record.weight_offset % 64 == 0


@given(graphs(max_levels=2, max_width=4))
def test_vectors_are_those_of_the_golden_model(graph: IntegerGraph) -> None:
    vectors = read_bundle(pack_bundle(graph, REFERENCE)).vectors
    assert np.array_equal(vectors.input, vector_frame())
    output, trace = interpret.run_traced(graph, vectors.input)
    assert np.array_equal(vectors.output, output)
    assert vectors.layer_crc32 == tuple(zlib.crc32(trace[x.name].tobytes()) for x in graph.layers)


def test_vector_frame_has_shading_noise_and_both_clips() -> None:
    frame = vector_frame()
    assert zlib.crc32(frame.tobytes()) == 0x95568B04
    assert frame.shape == (21, 37, 3)
    assert (frame == 0).sum() > 100
    assert (frame == 255).sum() > 100
    assert len(np.unique(frame)) > 200


def test_vectors_fit_the_smallest_chip() -> None:
    tiny = REFERENCE.capability.model_copy(update={"max_width": 5, "max_height": 1})
    data = pack_bundle(random_graph(0), REFERENCE.model_copy(update={"capability": tiny}))
    assert np.array_equal(read_bundle(data).vectors.input, vector_frame()[:1, :5])
    large = next(
        s.data
        for s in container.read_table(pack_bundle(random_graph(0), REFERENCE))
        if s.kind == "VECT"
    )
    with pytest.raises(ValueError, match="VECT frame must fit the chip's 5x1, got 37x21"):
        read_bundle(resealed(data, VECT=large))


def test_file_and_bytes_read_alike(tmp_path) -> None:
    graph = random_graph(5)
    write_bundle(graph, REFERENCE, tmp_path / "model.slb")
    assert os.listdir(tmp_path) == ["model.slb"]
    assert (tmp_path / "model.slb").read_bytes() == pack_bundle(graph, REFERENCE)
    assert_same_graph(read_bundle(tmp_path / "model.slb").graph(), graph)
    assert read_bundle(str(tmp_path / "model.slb")).bytes == os.path.getsize(tmp_path / "model.slb")
    with pytest.raises(FileNotFoundError, match=r"bundle: file must exist, got .*absent\.slb"):
        read_bundle(tmp_path / "absent.slb")


def test_bytes_are_the_same_in_another_process() -> None:
    program = (
        "import sys, hashlib; sys.path += ['src', 'tests']\n"
        "from strategies import EDGE, random_graph\n"
        "from hls_export.bundle import pack_bundle\n"
        "from hls_export.npu import load_chip\n"
        "data = pack_bundle(random_graph(9, EDGE), load_chip('reference'))\n"
        "assert 'torch' not in sys.modules\n"
        "print(hashlib.sha256(data).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1234")
    }
    assert len(digests) == 1


def test_layout_does_not_depend_on_speed() -> None:
    graph = random_graph(2)
    slow = REFERENCE.performance.model_copy(update={"clock_hz": 1})
    assert pack_bundle(graph, REFERENCE) == pack_bundle(
        graph, REFERENCE.model_copy(update={"performance": slow})
    )


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_name_that_the_file_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be UTF-8 text without NUL, not empty, got"):
        pack_bundle(dataclasses.replace(random_graph(0), name=name), REFERENCE)


def test_names_of_any_script_come_back() -> None:
    graph = dataclasses.replace(random_graph(0), name='rauscharm "夜" \\ */ é')
    assert read_bundle(pack_bundle(graph, REFERENCE)).graph().name == graph.name


def refused(data: bytes) -> bool:
    try:
        read_bundle(data)
    except ValueError as error:
        return str(error).startswith("bundle: ")
    return False


def test_every_flipped_bit_is_refused() -> None:
    data = bytearray(pack_bundle(random_graph(0, SMALLEST), REFERENCE))
    for index in range(len(data)):
        for bit in range(8):
            data[index] ^= 1 << bit
            assert refused(bytes(data)), (index, bit)
            data[index] ^= 1 << bit
    assert not refused(bytes(data))


def test_every_cut_is_refused() -> None:
    data = pack_bundle(random_graph(0, SMALLEST), REFERENCE)
    assert [length for length in range(len(data)) if not refused(data[:length])] == []
    with pytest.raises(ValueError, match=r"^bundle: size must be"):
        read_bundle(data + bytes(64))


def resealed(data: bytes, **changes: bytes) -> bytes:
    """The bundle with whole sections changed and every CRC and the SHA-256 right."""
    return container.pack_container(
        [
            (section.kind, section.required, changes.get(section.kind, section.data))
            for section in container.read_container(data)
        ]
    )


@given(st.sampled_from([*container.KINDS_REQUIRED, "META"]), seeds)
def test_forged_bytes_are_refused_or_give_a_lawful_bundle(kind: str, seed: int) -> None:
    """No IndexError, no overflow, no endless loop: a ValueError or a bundle that holds."""
    rng = random.Random(seed)
    data = pack_bundle(random_graph(seed % 4, TINY), REFERENCE)
    content = bytearray(next(s.data for s in container.read_table(data) if s.kind == kind))
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.randrange(len(content))
        content[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    if rng.random() < 0.1:
        del content[rng.randrange(len(content)) :]
    try:
        bundle = read_bundle(resealed(data, **{kind: bytes(content)}))
    except ValueError as error:
        refusal = str(error)
    else:
        check_plan(bundle.graph(), bundle.plan)
        return
    assert refusal.startswith("bundle: ")
    assert "\n" not in refusal


def forge(
    data: bytes, kind: str, row: int, record: type[Record], fields: dict[str, object]
) -> bytes:
    """One record of a section changed."""
    content = next(s.data for s in container.read_table(data) if s.kind == kind)
    start = row * record.SIZE
    old = record.unpack(content[start : start + record.SIZE], kind)
    new = dataclasses.replace(old, **fields)  # type: ignore[type-var]
    content = content[:start] + new.pack() + content[start + record.SIZE :]
    return resealed(data, **{kind: content})


@pytest.mark.parametrize(
    ("kind", "row", "record", "fields", "message"),
    [
        (
            "MODL",
            0,
            ModelRecord,
            {"arithmetic": 3},
            r"MODL arithmetic must be among \[1, 2\], got 3",
        ),
        ("MODL", 0, ModelRecord, {"levels": 0}, "graph .*: levels must be in"),
        ("MODL", 0, ModelRecord, {"levels": 2**31}, "graph .*: levels must be in"),
        ("MODL", 0, ModelRecord, {"layer_count": 1}, r"MODL\[0\] layer_count must be 17, got 1"),
        ("MODL", 0, ModelRecord, {"name": 0}, "name must lie in 1"),
        ("MODL", 0, ModelRecord, {"name": 2**32 - 1}, "name must lie in 1"),
        ("MODL", 0, ModelRecord, {"channel_block": 16}, "channel_block must be 8, got 16"),
        ("MODL", 0, ModelRecord, {"arena_bytes_per_cell": 64}, "must lie within the arena of 64"),
        (
            "BUFS",
            1,
            BufferRecord,
            {"bits": 16},
            r"format version must be 2\.x for what it holds, got 1",
        ),
        ("BUFS", 1, BufferRecord, {"channels": 0}, "channels must be at least 1"),
        ("BUFS", 1, BufferRecord, {"exponent": 13}, "exponent must be in"),
        ("BUFS", 1, BufferRecord, {"address_per_cell": 8}, "address must be a multiple of 16"),
        ("BUFS", 1, BufferRecord, {"kind": 1}, r"BUFS\[1\] kind must be 0, got 1"),
        ("BUFS", 1, BufferRecord, {"last_layer": 3}, r"BUFS\[1\] last_layer must be 15, got 3"),
        ("BUFS", 1, BufferRecord, {"bytes_per_cell": 3}, r"BUFS\[1\] bytes_per_cell must be 40"),
        ("LAYR", 2, LayerRecord, {"op": 9}, r"LAYR\[2\] op must be a known id, got 9"),
        ("LAYR", 2, LayerRecord, {"op": Op.TAIL}, r"LAYR\[2\] flags must have bit 2"),
        ("LAYR", 2, LayerRecord, {"flags": 1}, r"LAYR\[2\] output must be zero when absent"),
        ("LAYR", 2, LayerRecord, {"flags": 0x85}, r"LAYR\[2\] flags must be 5, got 133"),
        ("LAYR", 2, LayerRecord, {"kernel": 1}, r"LAYR\[2\] kernel must be 3, got 1"),
        ("LAYR", 2, LayerRecord, {"accumulator_bits": 9}, r"LAYR\[2\] accumulator_bits must be"),
        ("LAYR", 2, LayerRecord, {"weight_offset": 64}, r"LAYR\[2\] weight_offset must be"),
        ("LAYR", 2, LayerRecord, {"weight_crc32": 0}, r"LAYR\[2\] weight_crc32 must be"),
        ("LAYR", 2, LayerRecord, {"macs_per_cell": 1}, r"LAYR\[2\] macs_per_cell must be"),
        ("CHAN", 0, ChannelRecord, {"shift": 0}, r"CHAN\[0\] shift must be \d+, got 0"),
        ("CHAN", 0, ChannelRecord, {"join_shift": 1}, r"CHAN\[0\] join_shift must be 0, got 1"),
        ("CHAN", 0, ChannelRecord, {"weight_exponent": 99}, "channel 0: weight_exponent must be"),
        ("CHAN", 0, ChannelRecord, {"bias": 2**31 - 1}, "accumulator bound must be at most"),
    ],
)
def test_forged_record_is_refused_by_field(
    kind: str, row: int, record: type[Record], fields: dict[str, object], message: str
) -> None:
    data = pack_bundle(random_graph(1), REFERENCE)
    with pytest.raises(ValueError, match=f"^bundle: .*{message}"):
        read_bundle(forge(data, kind, row, record, fields))


def test_forged_sections_are_refused_by_name() -> None:
    data = pack_bundle(random_graph(1), REFERENCE)
    content = {section.kind: section.data for section in container.read_table(data)}
    weights = bytearray(content["WGHT"])
    weights[216] = 1  # between the head's 216 bytes and the next layer at 256
    with pytest.raises(ValueError, match="WGHT padding must be zero"):
        read_bundle(resealed(data, WGHT=bytes(weights)))
    weights[216], weights[0] = 0, 0x80
    with pytest.raises(ValueError, match="layer head, channel 0: weight must be in"):
        read_bundle(resealed(data, WGHT=bytes(weights)))
    with pytest.raises(ValueError, match="WGHT size must be"):
        read_bundle(resealed(data, WGHT=content["WGHT"][:-1]))
    with pytest.raises(ValueError, match="STRS must hold the names"):
        read_bundle(resealed(data, STRS=content["STRS"] + b"more\0"))
    with pytest.raises(ValueError, match="STRS must begin and end with NUL"):
        read_bundle(resealed(data, STRS=content["STRS"] + b"more"))
    with pytest.raises(ValueError, match="VECT size must be"):
        read_bundle(resealed(data, VECT=content["VECT"] + b"\0"))
    with pytest.raises(ValueError, match="VECT size must be at least 16, got 3"):
        read_bundle(resealed(data, VECT=content["VECT"][:3]))
    with pytest.raises(ValueError, match="META must be UTF-8 JSON"):
        read_bundle(resealed(data, META=b"{"))
    with pytest.raises(ValueError, match="META must be a JSON object, got list"):
        read_bundle(resealed(data, META=b"[]"))


def test_unknown_optional_section_is_skipped() -> None:
    graph = random_graph(1)
    data = pack_bundle(graph, REFERENCE)
    sections = [(s.kind, s.required, s.data) for s in container.read_table(data)]
    extended = container.pack_container([*sections, ("NEWS", False, b"later")])
    assert_same_graph(read_bundle(extended).graph(), graph)


def test_meta_names_the_arithmetic_and_nothing_of_the_machine() -> None:
    meta = read_bundle(pack_bundle(random_graph(1), REFERENCE)).meta
    assert meta["requantisation"] == "sat8(floor((acc + 2^(s-1)) / 2^s))"
    assert meta["generator"].startswith("starlight ")
    assert os.uname().nodename not in json.dumps(meta)
    assert sorted(meta) == list(meta)


def test_edge_network_needs_little_more_than_its_weights() -> None:
    graph = random_graph(0, EDGE)
    weights = sum(layer.weight.size for layer in graph.layers)
    assert weights < len(pack_bundle(graph, REFERENCE)) < weights + 32768
