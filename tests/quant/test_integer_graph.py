"""IntegerGraph: every breach of the contract refused by name, the proof tight, files round."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import EDGE, graphs, images, random_graph

from quant import intmath
from quant.contract import Op
from quant.graph_files import graph_to_dict, load_graph, save_graph
from quant.integer_graph import ARRAYS, IMAGE, Buffer, IntegerGraph, Layer, View
from quant.interpret import run, run_traced
from quant.intmath import UInt8Array

Change = Callable[[IntegerGraph], IntegerGraph]
GRAPH = random_graph(0)  # TINY: widths 4, 6; growths 2, 3


def change_layer(name: str, /, **changes: Any) -> Change:
    """Replace fields of one layer; a callable value is applied to the old one."""

    def apply(graph: IntegerGraph) -> IntegerGraph:
        def replaced(layer: Layer) -> Layer:
            values = {
                key: value(getattr(layer, key)) if callable(value) else value
                for key, value in changes.items()
            }
            return dataclasses.replace(layer, **values)

        layers = tuple(replaced(it) if it.name == name else it for it in graph.layers)
        return dataclasses.replace(graph, layers=layers)

    return apply


def change_buffer(name: str, /, **changes: Any) -> Change:
    def apply(graph: IntegerGraph) -> IntegerGraph:
        buffers = tuple(
            dataclasses.replace(it, **changes) if it.name == name else it for it in graph.buffers
        )
        return dataclasses.replace(graph, buffers=buffers)

    return apply


def change_graph(**changes: Any) -> Change:
    def apply(graph: IntegerGraph) -> IntegerGraph:
        values = {
            key: value(getattr(graph, key)) if callable(value) else value
            for key, value in changes.items()
        }
        return dataclasses.replace(graph, **values)

    return apply


def put(channel: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    """Set one element of [O] or the first of channel O's window, in int64."""

    def apply(array: np.ndarray) -> np.ndarray:
        wide = array.astype(np.int64)
        wide.reshape(wide.shape[0], -1)[channel, 0] = value
        return wide

    return apply


BREACHES: dict[str, tuple[Change, str]] = {
    "levels-0": (change_graph(levels=0), r"graph natural-0: levels must be in 1\.\.6, got 0"),
    "levels-7": (change_graph(levels=7), r"levels must be in 1\.\.6, got 7"),
    "buffer-twice": (
        change_graph(buffers=lambda b: (*b, b[-1])),
        "graph natural-0: buffer names must differ",
    ),
    "no-image": (change_graph(buffers=lambda b: b[1:]), "buffers must hold 'image'"),
    "image-exponent": (change_buffer(IMAGE, exponent=6), "image must be Buffer.*exponent=7"),
    "image-channels": (change_buffer(IMAGE, channels=4), "image must be Buffer.*channels=3"),
    "no-channels": (
        change_buffer("second", channels=0),
        "buffer second: channels must be at least 1, got 0",
    ),
    "level-high": (
        change_buffer("second", level=2),
        r"buffer second: level must be in 0\.\.1, got 2",
    ),
    "level-low": (change_buffer("second", level=-1), "buffer second: level must be in"),
    "exponent-high": (
        change_buffer("second", exponent=13),
        r"buffer second: exponent must be in -4\.\.12, got 13",
    ),
    "exponent-low": (change_buffer("second", exponent=-5), "exponent must be in .*, got -5"),
    "twelve-bits": (
        change_buffer("second", bits=12),
        "buffer second: bits must be 8 or 16, got 12",
    ),
    "layer-twice": (
        change_layer("second", name="head"),
        "layer head: name must be unique, got head",
    ),
    "tail-missing": (
        change_graph(layers=lambda layers: layers[:-1]),
        "layers must end with the only tail",
    ),
    "tail-early": (
        change_graph(
            layers=lambda layers: (
                *layers,
                dataclasses.replace(layers[0], name="late", output=View("extra", 0, 4)),
            ),
            buffers=lambda buffers: (*buffers, Buffer("extra", 4, 0, 5)),
        ),
        "layers must end with the only tail",
    ),
    "no-layers": (change_graph(layers=()), "layers must end with the only tail"),
    "weight-inputs": (
        change_layer("head", weight=lambda w: w[:, :2]),
        r"layer head: weight must have shape \(O, 3, 3, 3\), got \(4, 2, 3, 3\)",
    ),
    "weight-kernel": (
        change_layer("head", weight=lambda w: w[..., 1:2, 1:2]),
        r"layer head: weight must have shape",
    ),
    "weight-flat": (
        change_layer("head", weight=lambda w: w.reshape(-1)),
        r"layer head: weight must have four dimensions, got \(108,\)",
    ),
    "no-outputs": (
        change_layer("head", weight=lambda w: w[:0]),
        "layer head: output channels must be at least 1, got 0",
    ),
    "bias-shape": (
        change_layer("head", bias=lambda b: b[:-1]),
        r"layer head: bias must have shape \(4,\), got \(3,\)",
    ),
    "exponent-shape": (
        change_layer("head", weight_exponent=lambda e: e[0]),
        r"layer head: weight_exponent must have shape \(4,\), got \(\)",
    ),
    "input-unknown": (
        change_layer("head", input=View("nowhere", 0, 3)),
        "layer head: input buffer must exist, got nowhere",
    ),
    "input-outside": (
        change_layer("second", input=View("decoder.0.out", 1, 4)),
        "layer second: input must lie within the 4 channels of decoder.0.out",
    ),
    "input-negative": (
        change_layer("second", input=View("decoder.0.out", -1, 4)),
        "layer second: input must lie within",
    ),
    "input-early": (
        change_layer("head", input=View("second", 0, 3)),
        "layer head: input must be written before",
    ),
    "join-early": (
        change_layer("encoder.0.dense.fuse", join=View("decoder.0.out", 0, 4)),
        "layer encoder.0.dense.fuse: join must be written before",
    ),
    "join-level": (
        change_layer("decoder.0.up", join=View("middle.dense", 0, 4)),
        "layer decoder.0.up: join level must be 0, got 1",
    ),
    "join-channels": (
        change_layer("second", join=View("encoder.0.dense", 0, 3)),
        "layer second: join channels must be 4, got 3",
    ),
    "output-twice": (
        change_layer("second", output=View("decoder.0.out", 0, 4)),
        "layer second: output must be written once",
    ),
    "output-level": (
        change_layer("encoder.0.down", output=View("second", 0, 4)),
        "layer encoder.0.down: output level must be 1, got 0",
    ),
    "output-channels": (
        change_layer("head", output=View("encoder.0.dense", 0, 3)),
        "layer head: output channels must be 4, got 3",
    ),
    "output-none": (change_layer("second", output=None), "layer second: output must be a view"),
    "tail-output": (
        change_layer("tail", output=View("second", 0, 3)),
        "layer tail: output must be written once",
    ),
    "tail-join": (
        change_layer("tail", join=View(IMAGE, 0, 3)),
        "layer tail: join must be None for a tail",
    ),
    "tail-relu": (change_layer("tail", relu=True), "layer tail: relu must be False for a tail"),
    "tail-level": (
        change_layer(
            "tail",
            input=View("middle.out", 0, 6),
            weight=np.zeros((3, 6, 3, 3), np.int8),
        ),
        "layer tail: input level must be 0 for a tail, got 1",
    ),
    "tail-channels": (
        change_layer(
            "tail",
            weight=np.zeros((4, 4, 3, 3), np.int8),
            weight_exponent=np.full(4, 7),
            bias=np.zeros(4, np.int64),
        ),
        "layer tail: channels must be 3, got 4",
    ),
    "up-channels": (
        change_layer(
            "decoder.0.up",
            weight=lambda w: np.concatenate([w, w[:2]]),
            weight_exponent=lambda e: np.concatenate([e, e[:2]]),
            bias=lambda b: np.concatenate([b, b[:2]]),
        ),
        "layer decoder.0.up: output channels must be a multiple of 4, got 18",
    ),
    "weight-low": (
        change_layer("head", weight=put(2, -128)),
        r"layer head, channel 2: weight must be in -127\.\.127, got -128",
    ),
    "weight-high": (change_layer("head", weight=put(1, 128)), "channel 1: weight .* got 128"),
    "weight-exponent-high": (
        change_layer("head", weight_exponent=put(3, 16)),
        r"layer head, channel 3: weight_exponent must be in 0\.\.15, got 16",
    ),
    "weight-exponent-low": (
        change_layer("head", weight_exponent=put(3, -1)),
        "channel 3: weight_exponent .* got -1",
    ),
    "bias-high": (
        change_layer("head", bias=put(0, 2**31)),
        "layer head, channel 0: bias must be in .*, got 2147483648",
    ),
    "bias-low": (
        change_layer("head", bias=put(0, -(2**31))),
        "layer head, channel 0: bias must be in .*, got -2147483648",
    ),
}


@pytest.mark.parametrize("breach", list(BREACHES))
def test_each_breach_is_refused_by_name(breach: str) -> None:
    change, message = BREACHES[breach]
    with pytest.raises(ValueError, match=message):
        change(GRAPH)


@pytest.mark.parametrize("field", ARRAYS)
def test_float_arrays_are_refused(field: str) -> None:
    with pytest.raises(TypeError, match=f"layer head: {field} must be an integer array"):
        change_layer("head", **{field: lambda array: array.astype(np.float64)})(GRAPH)


def small_graph(
    *,
    e_in: int = 5,
    e_join: int = 5,
    e_out: int = 5,
    weight_exponent: int = 7,
    weight: int = 1,
    bias: int = 0,
) -> IntegerGraph:
    """head and side read the image; mix, the layer under test, is a 1x1 with a join; tail."""
    exponents = {"a": e_in, "j": e_join, "b": e_out}

    def layer(
        name: str, op: Op, source: str, target: str | None, e_w: int, joined: str | None = None
    ) -> Layer:
        inputs = 3 if source == IMAGE else 2
        outputs = 2 if target else 3
        return Layer(
            name,
            op,
            View(source, 0, inputs),
            View(target, 0, 2) if target else None,
            View(joined, 0, 2) if joined else None,
            False,
            np.zeros((outputs, inputs, op.kernel, op.kernel), np.int8),
            np.full(outputs, e_w),
            np.zeros(outputs, np.int64),
        )

    mix = layer("mix", Op.CONV1X1, "a", "b", weight_exponent, "j")
    mix.weight[1] = weight
    mix.bias[1] = bias
    return IntegerGraph(
        "small",
        1,
        (Buffer(IMAGE, 3, 0, 7), *(Buffer(name, 2, 0, e) for name, e in exponents.items())),
        (
            layer("head", Op.CONV3X3, IMAGE, "a", max(0, e_in - 6)),
            layer("side", Op.CONV3X3, IMAGE, "j", max(0, e_join - 6)),
            mix,
            layer("tail", Op.TAIL, "b", None, max(0, 8 - e_out)),
        ),
    )


@pytest.mark.parametrize(
    ("e_in", "weight_exponent", "e_out", "shift"),
    [(5, 0, 5, 0), (5, 0, 4, 1), (9, 15, 0, 24), (10, 15, 0, 25), (-4, 15, 12, -1)],
)
def test_the_requantisation_shift_is_1_to_24(
    e_in: int, weight_exponent: int, e_out: int, shift: int
) -> None:
    def build() -> IntegerGraph:
        return small_graph(e_in=e_in, weight_exponent=weight_exponent, e_out=e_out)

    if 1 <= shift <= 24:
        graph = build()
        assert graph.shift(graph.layers[2]).tolist() == [shift, shift]
    else:
        message = rf"layer mix, channel 0: requantisation shift must be in 1\.\.24, got {shift}$"
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.parametrize(
    ("e_in", "weight_exponent", "e_join", "shift"),
    [(5, 1, 7, -1), (5, 1, 6, 0), (5, 15, 0, 20), (6, 15, 0, 21)],
)
def test_the_join_shift_is_0_to_20(
    e_in: int, weight_exponent: int, e_join: int, shift: int
) -> None:
    def build() -> IntegerGraph:
        return small_graph(e_in=e_in, weight_exponent=weight_exponent, e_join=e_join)

    if 0 <= shift <= 20:
        graph = build()
        assert graph.join_shift(graph.layers[2]).tolist() == [shift, shift]
    else:
        message = rf"layer mix, channel 0: join shift must be in 0\.\.20, got {shift}$"
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("e_in", "weight_exponent"), [(5, 1), (5, 7), (9, 10)])
def test_the_accumulator_proof_is_tight(
    weight: int, sign: int, e_in: int, weight_exponent: int
) -> None:
    """The bound of docs/NUMERICS.md, written out: met exactly it is accepted, one more is not."""
    shift = join_shift = e_in + weight_exponent - 5
    rest = 128 * 127 * 2 + 128 * 2**join_shift + 2 ** (shift - 1)
    bias = sign * (2**31 - 1 - rest)

    def build(bias: int) -> IntegerGraph:
        return small_graph(e_in=e_in, weight_exponent=weight_exponent, weight=weight, bias=bias)

    graph = build(bias)
    mix = graph.layers[2]
    assert graph.accumulator_bound(mix)[1] == 2**31 - 1
    assert graph.accumulator_bits(mix) == 32
    message = "layer mix, channel 1: accumulator bound must be at most 2147483647, got 2147483648"
    with pytest.raises(ValueError, match=message):
        build(bias + sign)


def test_an_input_reaches_the_bound_but_for_the_rounding_half() -> None:
    graph = small_graph(weight=127, bias=-(2**31 - 1 - 128 * 127 * 2 - 128 * 2**7 - 2**6))
    mix = graph.layers[2]
    lowest = np.full((1, 1, 2), -128, np.int8)
    acc = intmath.convolve(lowest, mix.weight, mix.bias)
    acc = intmath.join(acc, lowest, graph.join_shift(mix))
    assert acc[0, 0, 1] == -(2**31 - 1 - 2**6)


@pytest.mark.parametrize(("bias", "bits"), [(0, 14), (4079, 14), (4080, 15), (-4080, 15)])
def test_accumulator_bits_is_the_least_width(bias: int, bits: int) -> None:
    """Without weights the bound is |b| + 128 * 2^5 + 2^4 = |b| + 4112; 14 bits hold 8191."""
    graph = small_graph(weight=0, weight_exponent=5, bias=bias)
    assert graph.accumulator_bits(graph.layers[2]) == bits


@given(graph=graphs(), image=images(max_side=9))
def test_no_input_overflows_a_proven_graph(graph: IntegerGraph, image: UInt8Array) -> None:
    """The oracle raises when an accumulator leaves int32; on a graph that holds it never does."""
    run(graph, image)
    assert max(graph.accumulator_bits(layer) for layer in graph.layers) <= 32


def test_macs_count_the_products_of_the_padded_image() -> None:
    graph = random_graph(0, EDGE)
    _, trace = run_traced(graph, np.zeros((5, 9, 3), np.uint8))
    for layer in graph.layers:
        height, width, channels = trace[layer.name].shape
        products = height * width * channels * int(np.prod(layer.weight.shape[1:]))
        assert graph.macs(layer, 5, 9) == products


def same(left: IntegerGraph, right: IntegerGraph) -> bool:
    return graph_to_dict(left) == graph_to_dict(right) and all(
        np.array_equal(getattr(a, field), getattr(b, field))
        and getattr(a, field).dtype == getattr(b, field).dtype
        for a, b in zip(left.layers, right.layers, strict=True)
        for field in ARRAYS
    )


@given(graph=graphs())
def test_files_round_trip(graph: IntegerGraph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.json"
        save_graph(graph, path)
        assert same(load_graph(path), graph)
        assert sorted(it.name for it in path.parent.iterdir()) == ["graph.json", "graph.npz"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    with pytest.raises(FileNotFoundError, match=r"graph\.json must exist"):
        load_graph(path)
    save_graph(GRAPH, path)
    path.with_suffix(".npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"graph\.npz must exist"):
        load_graph(path)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "graph.json"
    save_graph(GRAPH, path)
    part = path.with_suffix(suffix)
    content = part.read_bytes()
    whole = len(content.rstrip())
    for length in {0, 1, whole - 1, *range(0, whole, max(1, whole // 60))}:
        part.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"graph .*graph\.json: "):
            load_graph(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "arithmetic",
            "affine",
            "document: arithmetic must be one of dyadic, multiplier, got affine",
        ),
        ("arithmetic_version", 2, "document: arithmetic_version must be 1, got 2"),
        ("requantisation", "half-even", "document: requantisation must be .*, got half-even"),
        ("tail_requantisation", None, "document: tail_requantisation must be"),
        ("name", 3, "document: name must be of type str, got 3"),
        ("levels", None, "document: levels must be of type int, got None"),
        ("levels", 1.0, r"document: levels must be of type int, got 1\.0"),
        ("levels", True, "document: levels must be of type int, got True"),
        ("buffers", [], "buffers must hold 'image'"),
        ("layers", [], "layers must end with the only tail"),
        ("layers", 1, "content must be a saved IntegerGraph"),
    ],
)
def test_altered_documents_are_refused(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = tmp_path / "graph.json"
    save_graph(GRAPH, path)
    document = json.loads(path.read_text())
    document[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        load_graph(path)


WRONG = (None, True, 1.0, "x", [], {}, {"buffer": "image"})


@pytest.mark.parametrize(("kind", "index"), [("buffers", 1), ("layers", 5), ("layers", -2)])
def test_every_field_of_a_record_is_typed(tmp_path: Path, kind: str, index: int) -> None:
    """A value of another type is never taken for what it should be."""
    path = tmp_path / "graph.json"
    save_graph(GRAPH, path)
    original = path.read_text()
    for key, value in json.loads(original)[kind][index].items():
        for wrong in WRONG:
            if type(wrong) is type(value) or (key, wrong) == ("join", None):
                continue
            document = json.loads(original)
            document[kind][index][key] = wrong
            path.write_text(json.dumps(document))
            with pytest.raises(ValueError, match=r"graph .*graph\.json: "):
                load_graph(path)


def test_a_flipped_bit_in_the_arrays_changes_nothing_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    save_graph(GRAPH, path)
    archive = path.with_suffix(".npz")
    content = archive.read_bytes()
    refused = 0
    for position in np.random.default_rng(0).integers(0, 8 * len(content), 300):
        altered = bytearray(content)
        altered[position // 8] ^= 1 << position % 8
        archive.write_bytes(altered)
        try:
            assert same(load_graph(path), GRAPH)
        except ValueError:
            refused += 1
    assert refused > 150


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    save_graph(GRAPH, path)
    before = {it.name: it.read_bytes() for it in tmp_path.iterdir()}
    broken = dataclasses.replace(random_graph(1), name=b"not JSON")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        save_graph(broken, path)
    assert {it.name for it in tmp_path.iterdir()} == set(before)
    assert path.read_bytes() == before["graph.json"]
