"""Compressed weights: decoded == original, in Python and C; what does not decode is refused."""

import ctypes
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from runtime_library import Model, library, statuses
from strategies import EDGE, STYLES, TINY, graphs, random_graph, random_image

from hls_export import container, rice
from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.compression import HEAD, compress, decompress, weight_gain
from hls_export.costs import frame_costs
from hls_export.group_shape import FRAME
from hls_export.layer_table import StreamRecord
from hls_export.lower_bound import least_traffic
from hls_export.npu import Chip, known_chips, load_chip
from hls_export.plan import traffic
from hls_export.planner import plan_stripes
from quant import interpret
from quant.graph_files import save_graph
from quant.integer_graph import IntegerGraph

GRAPH = random_graph(3, TINY)
BUNDLE = pack_bundle(GRAPH, load_chip("reference"))
PACKED = compress(BUNDLE)
weights = arrays.arrays(np.int8, st.integers(0, 300), elements=st.integers(-127, 127))


def unpacked_by_c(packed: bytes, capacity: int | None = None) -> tuple[str, bytes, int]:
    """sl_decompress: its status, what it wrote and the size that it states."""
    need = ctypes.c_size_t(0)
    call = library().sl_decompress
    data = ctypes.create_string_buffer(packed, len(packed))
    size = ctypes.c_size_t(len(packed))
    if capacity is None:
        status = call(data, size, None, ctypes.c_size_t(0), ctypes.byref(need))
        if statuses()[status] != "SL_OUTPUT_TOO_SMALL":
            return statuses()[status], b"", need.value
        capacity = need.value
    out = ctypes.create_string_buffer(b"\xa5" * capacity, capacity)
    status = call(data, size, out, ctypes.c_size_t(capacity), ctypes.byref(need))
    return statuses()[status], out.raw, need.value


@given(weights, st.sampled_from(rice.PARAMETERS))
@example(np.arange(-127, 128, dtype=np.int8), 0)
@example(np.full(9, -127, np.int8), 7)
@example(np.full(9, 127, np.int8), 0)
@example(np.zeros(1, np.int8), 0)
def test_codes_give_the_weights_back(values: np.ndarray, k: int) -> None:
    codes = rice.encode(values, k)
    assert len(codes) == -(-rice.coded_bits(values, k) // 8)
    assert np.array_equal(rice.decode(codes, values.size, k), values)


def test_codes_are_those_of_the_document() -> None:
    # z = 0, 1, 2, 9 with k = 2: 000, 001, 010, 11001
    assert rice.encode(np.array([0, -1, 1, -5], np.int8), 2) == bytes([0b00000101, 0b01100100])


@given(weights)
def test_the_parameter_is_the_best(values: np.ndarray) -> None:
    sizes = [len(rice.encode(values, k)) for k in rice.PARAMETERS]
    assert sizes[rice.best_parameter(values)] == min(sizes)


@pytest.mark.parametrize(
    ("codes", "count", "k", "message"),
    [
        (b"\x00", 1, 8, "k must be 0..7, got 8"),
        (b"\x00", 9, 0, "bytes must hold 9 codes, got 1"),
        (b"\xff\xff", 2, 0, "an end in code 0"),
        (b"\x80", 2, 6, "bytes must hold 2 codes"),
        (b"\x00\x80", 1, 7, "bits behind code 1 must be zeros"),
        (b"\x40", 1, 0, "bits behind code 1"),
        (b"\x00\x00", 3, 0, "bits behind code 3"),
        (b"\xff\x80\x00", 1, 7, "codes must be at most 254, got 1152"),
        (b"\xc0\x00", 1, 7, "codes must be at most 254, got 256"),
        (b"\xbf\x80", 1, 7, "codes must be at most 254, got 255"),
        (b"\xff" * 31 + b"\xfe", 1, 0, "codes must be at most 254, got 255"),
    ],
)
def test_streams_that_are_none_are_refused(codes: bytes, count: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rice.decode(codes, count, k)
    out = np.zeros(max(count, 1), np.int8)
    place = ctypes.c_void_p(out.ctypes.data)
    size, number = ctypes.c_size_t(len(codes)), ctypes.c_size_t(count)
    assert library().sl_decode_rice(codes, size, ctypes.c_uint32(k), place, number) == 0


@given(weights, st.sampled_from(rice.PARAMETERS), st.binary(max_size=40))
def test_python_and_c_decode_alike(values: np.ndarray, k: int, junk: bytes) -> None:
    for codes in (rice.encode(values, k), junk):
        out = np.full(values.size + 1, 99, np.int8)
        decoded = library().sl_decode_rice(
            codes,
            ctypes.c_size_t(len(codes)),
            ctypes.c_uint32(k),
            ctypes.c_void_p(out.ctypes.data),
            ctypes.c_size_t(values.size),
        )
        try:
            expected = rice.decode(codes, values.size, k)
        except ValueError:
            assert decoded == 0
        else:
            assert decoded == 1
            assert np.array_equal(out[:-1], expected)
        assert out[-1] == 99


@given(graphs())
@example(random_graph(0, TINY, "edges"))
def test_the_plain_bundle_comes_back_byte_for_byte(graph: IntegerGraph) -> None:
    plain = pack_bundle(graph, load_chip("reference"))
    packed = compress(plain)
    assert container.read_header(packed).format_major == 2
    assert decompress(packed) == plain
    assert unpacked_by_c(packed) == ("SL_OK", plain, len(plain))


def test_a_plain_bundle_of_format_1_stays_what_it_was() -> None:
    assert container.read_header(BUNDLE).format_major == 1
    assert decompress(PACKED) == BUNDLE
    image = random_image(0, 9, 12)
    assert np.array_equal(
        interpret.run(read_bundle(decompress(PACKED)).graph(), image), interpret.run(GRAPH, image)
    )


def test_what_runs_bundles_refuses_compressed_ones() -> None:
    with pytest.raises(ValueError, match=r"plain .*`python -m hls_export decompress`"):
        read_bundle(PACKED)
    assert Model(PACKED).status == "SL_COMPRESSED"
    with pytest.raises(ValueError, match="weights must be compressed, got section WGHT"):
        decompress(BUNDLE)
    assert unpacked_by_c(BUNDLE)[0] == "SL_MISSING_SECTION"
    as_format_1 = container.pack_container(
        [(s.kind, s.required, s.data) for s in container.read_container(PACKED, "WRIC")], 1
    )
    assert unpacked_by_c(as_format_1)[0] == "SL_UNKNOWN_REQUIRED_SECTION"
    with pytest.raises(ValueError, match="WRIC"):
        decompress(as_format_1)


def test_c_writes_within_its_memory_and_apart_from_its_input() -> None:
    status, out, need = unpacked_by_c(PACKED, len(BUNDLE) - 1)
    assert (status, need) == ("SL_OUTPUT_TOO_SMALL", len(BUNDLE))
    assert set(out) == {0xA5}
    status, out, _ = unpacked_by_c(PACKED, len(BUNDLE) + 5)
    assert (status, out[:-5], out[-5:]) == ("SL_OK", BUNDLE, b"\xa5" * 5)
    memory = ctypes.create_string_buffer(PACKED, len(PACKED) + len(BUNDLE))
    need_of = ctypes.c_size_t(0)
    call = library().sl_decompress
    size, room = ctypes.c_size_t(len(PACKED)), ctypes.c_size_t(len(BUNDLE))
    inside = ctypes.byref(memory, 64)
    assert statuses()[call(memory, size, inside, room, ctypes.byref(need_of))] == (
        "SL_MEMORY_OVERLAPS"
    )
    assert statuses()[call(None, size, inside, room, ctypes.byref(need_of))] == "SL_NULL_ARGUMENT"
    assert statuses()[call(memory, size, None, room, ctypes.byref(need_of))] == "SL_NULL_ARGUMENT"


def resealed(change: dict[int, bytes], kind: str = "WRIC", grow: bytes = b"") -> bytes:
    """PACKED with bytes of a section changed at offsets, and every CRC right."""
    parts = []
    for section in container.read_container(PACKED, "WRIC"):
        data = bytearray(section.data)
        if section.kind == kind:
            for at, new in change.items():
                data[at : at + len(new)] = new
            data += grow
        parts.append((section.kind, section.required, bytes(data)))
    return container.pack_container(parts, 2)


FIRST = StreamRecord.unpack(
    next(s.data for s in container.read_container(PACKED, "WRIC") if s.kind == "WRIC")[
        HEAD : HEAD + StreamRecord.SIZE
    ],
    "stream",
)
LAST = HEAD + (len(GRAPH.layers) - 1) * StreamRecord.SIZE


@pytest.mark.parametrize(
    ("packed", "status", "message"),
    [
        (resealed({0: b"\x01"}), "SL_BAD_COMPRESSION", "layers must agree"),
        (resealed({4: b"\x03"}), "SL_BAD_COMPRESSION", "plain format must be among"),
        (resealed({4: b"\x00"}), "SL_BAD_COMPRESSION", "plain format must be among"),
        (resealed({40: b"\x01"}), "SL_BAD_COMPRESSION", "reserved"),
        (resealed({HEAD: b"\x01"}), "SL_BAD_COMPRESSION", "stream 0 offset must be"),
        (resealed({HEAD + 8: b"\xff\xff\xff\xff"}), "SL_BAD_COMPRESSION", "stream 0 end must be"),
        (
            resealed({HEAD + 8: struct.pack("<I", FIRST.bytes + 1)}),
            "SL_BAD_COMPRESSION",
            "bits behind|padding",
        ),
        (
            resealed({HEAD + 8: struct.pack("<I", FIRST.bytes - 1)}),
            "SL_BAD_COMPRESSION",
            "padding must be 0|an end in code",
        ),
        (resealed({HEAD + 12: b"\x08"}), "SL_BAD_COMPRESSION", "stream 0 k must be at most 7"),
        (resealed({HEAD + 13: b"\x01"}), "SL_BAD_COMPRESSION", "reserved"),
        (resealed({FIRST.offset: b"\xff" * 40}), "SL_BAD_COMPRESSION", "codes must be|an end in"),
        (resealed({}, grow=b"\0"), "SL_BAD_COMPRESSION", "streams' end must be"),
        (
            resealed({92: b"\x00\x01\x02\x03"}, "LAYR"),
            "SL_BAD_WEIGHTS",
            "layer 0 weights' CRC-32 must be 03020100",
        ),
        (resealed({80: b"\xff" * 8}, "LAYR"), "SL_BAD_COMPRESSION", "layer 0 weights must be at"),
        (resealed({72: b"\x40"}, "LAYR"), "SL_BAD_COMPRESSION", "layer 0 weight offset must be 0"),
        (resealed({32: b"\xff" * 8}, "MODL"), "SL_BAD_COMPRESSION", "weight bytes must be"),
        (resealed({8: b"\xff" * 4}, "MODL"), "SL_BAD_LAYER", "layers must agree"),
    ],
)
def test_what_does_not_hold_is_refused_by_both(packed: bytes, status: str, message: str) -> None:
    assert unpacked_by_c(packed)[0] == status
    with pytest.raises(ValueError, match=message):
        decompress(packed)


def test_another_plain_bundle_is_noticed_by_its_hash() -> None:
    with pytest.raises(ValueError, match="SHA-256 must be 01"):
        decompress(resealed({8: b"\x01\x02"}))


@pytest.mark.parametrize("style", STYLES)
def test_gain_is_that_of_the_file(style: str) -> None:
    plain = pack_bundle(random_graph(1, TINY, style), load_chip("mid"))
    gain = weight_gain(read_bundle(plain))
    assert gain["plain_bytes"] == sum(s["plain_bytes"] for s in gain["layers"].values())
    assert gain["compressed_bytes"] == sum(s["compressed_bytes"] for s in gain["layers"].values())
    packed = next(
        s.data for s in container.read_container(compress(plain), "WRIC") if s.kind == "WRIC"
    )
    head = HEAD + len(gain["layers"]) * StreamRecord.SIZE
    slack = 64 * len(gain["layers"])
    assert head + gain["compressed_bytes"] <= len(packed) < head + gain["compressed_bytes"] + slack


def test_commands(tmp_path: Path) -> None:
    def call(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    save_graph(GRAPH, tmp_path / "graph.json")
    out = tmp_path / "out"
    shown = call("export", tmp_path / "graph.json", out, "--compress-weights")
    assert f"{out / 'model.packed.slb'}: weights " in shown
    call("decompress", out / "model.packed.slb", tmp_path / "plain.slb")
    assert (tmp_path / "plain.slb").read_bytes() == (out / "model.slb").read_bytes()
    refused = CliRunner().invoke(main, ["verify", str(out / "model.packed.slb")])
    assert refused.exit_code == 2
    assert "hls_export decompress" in refused.stderr


def with_decoder(name: str) -> Chip:
    chip = load_chip(name)
    performance = chip.performance.model_copy(update={"weight_decoder": True})
    return chip.model_copy(update={"performance": performance})


@pytest.mark.parametrize("name", known_chips())
def test_a_chip_with_a_decoder_moves_the_compressed_weights(name: str) -> None:
    """By every schedule and by the plan's account; nothing else changes."""
    graph, chip, decoder = GRAPH, load_chip(name), with_decoder(name)
    frame, block = (90, 160), chip.capability.channel_block
    plan = plan_stripes(graph, chip)
    gain = weight_gain(read_bundle(pack_bundle(graph, chip)))
    for layer in graph.layers:
        assert rice.layer_bytes(layer, block) == gain["layers"][layer.name]["compressed_bytes"]
    plain, packed = (traffic(graph, plan, block, *frame, flag) for flag in (False, True))
    groups = [item.layer for group in plan.groups for item in group.items if item.layer]
    resident = all(
        item.weight_address is not None for g in plan.groups for item in g.items if item.layer
    )
    if resident:
        saved = sum(
            gain["layers"][name]["plain_bytes"] - gain["layers"][name]["compressed_bytes"]
            for name in groups
        )
        assert plain.weights - packed.weights == saved
    assert plain.total - plain.weights == packed.total - packed.weights
    costs = [frame_costs(graph, each, *frame, plan) for each in (chip, decoder)]
    for title, cost in costs[0].items():
        if title == "uniform tiles":  # it may cut the layers elsewhere
            continue
        one, other = cost.traffic, costs[1][title].traffic
        assert other.dram_read < one.dram_read
        assert replace(other, dram_read=0) == replace(one, dram_read=0)


def test_plans_for_a_decoder_are_lawful_and_cheaper() -> None:
    graph, chip = random_graph(5, EDGE), load_chip("small")
    decoder, block = with_decoder("small"), chip.capability.channel_block
    plan = plan_stripes(graph, decoder)
    moved = traffic(graph, plan, block, *FRAME, True).total
    assert moved < traffic(graph, plan_stripes(graph, chip), block, *FRAME).total
    assert least_traffic(graph, decoder) <= moved
    assert read_bundle(pack_bundle(graph, decoder, plan)).stripes == plan


def test_a_packed_bundle_of_the_past_is_the_plain_one_byte_for_byte() -> None:
    """By both readers; the file is never to be written again."""
    folder = Path(__file__).parent / "bundles"
    plain, packed = ((folder / f"format_2_0{name}.slb").read_bytes() for name in ("", "_packed"))
    sha256 = "432495a94d45ef1d9823b0d11fe31f796ff2ff9c73a84d817373781189fb48ec"
    assert hashlib.sha256(packed).hexdigest() == sha256
    assert decompress(packed) == plain
    status, written, size = unpacked_by_c(packed)
    assert (status, written, size) == ("SL_OK", plain, len(plain))
