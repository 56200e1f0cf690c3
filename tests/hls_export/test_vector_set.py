"""Vectors for RTL and firmware: every machine passes them, no fault of the arithmetic does."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from strategies import TINY, random_graph

from hls_export import blobs
from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.corners import UNDER_TEST, Case, corner_cases
from hls_export.executors.c_runtime import native
from hls_export.layer_table import ChannelRecord, unpack_table
from hls_export.npu import Chip, load_chip
from hls_export.vector_set import fitting_cases, pack_case, write_vectors
from quant import contract, interpret, intmath
from quant.contract import Op

REFERENCE = load_chip("reference")
CASES = list(corner_cases())


def with_capability(**changes: object) -> Chip:
    return REFERENCE.model_copy(
        update={"capability": REFERENCE.capability.model_copy(update=changes)}
    )


@pytest.mark.parametrize("block", [1, 8, 64])
def test_the_c_runtime_passes_every_case(block: int) -> None:
    chip = with_capability(channel_block=block)
    for case in CASES:
        assert native().Model(pack_case(case, chip)).self_test() is None, case.name


def test_names_differ_and_every_operation_has_its_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for op in Op:
        mine = [case for case in CASES if case.name.startswith(f"{op.name.lower()}-")]
        frames = {case.frame.shape[:2] for case in mine}
        assert {(1, 1), (1, 8), (9, 1), (2, 2), (3, 5), (8, 8), (11, 19)} <= frames
        corners = {corner for case in mine for corner in case.corners}
        taps = {corner.split(" of ")[0] for corner in corners if corner.startswith("tap")}
        assert len(taps) == op.kernel**2


def accumulators(case: Case) -> tuple[np.ndarray, np.ndarray, int]:
    """Sums of the layer under test, its shifts, and the bound of its proof."""
    graph = case.graph
    layer = next(layer for layer in graph.layers if layer.name == UNDER_TEST)
    seen: list[np.ndarray] = []
    requantise, tail_pixels = intmath.requantise, intmath.tail_pixels

    def spy_requantise(acc: np.ndarray, shift: np.ndarray, **options: bool) -> np.ndarray:
        seen.append(acc)
        return requantise(acc, shift, **options)

    def spy_tail(pixels: np.ndarray, acc: np.ndarray, shift: np.ndarray) -> np.ndarray:
        seen.append(acc)
        return tail_pixels(pixels, acc, shift)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intmath, "requantise", spy_requantise)
        patch.setattr(intmath, "tail_pixels", spy_tail)
        interpret.run(graph, case.frame)
    index = [layer.name for layer in graph.layers].index(UNDER_TEST)
    return seen[index], graph.shift(layer), int(graph.accumulator_bound(layer).max())


@pytest.mark.parametrize("op", Op)
def test_the_corners_are_reached(op: Op) -> None:
    """Not only meant: ties of both signs, both saturations, and sums at both ends of the proof."""
    ties: set[int] = set()
    steps: set[int] = set()
    shifts_met: set[int] = set()
    highest, lowest = 0, 0
    for case in CASES:
        if not case.name.startswith(f"{op.name.lower()}-"):
            continue
        acc, shifts, _ = accumulators(case)
        half = np.left_shift(np.int64(1), shifts - 1)
        tied = (acc % (2 * half)) == half
        ties |= set(np.sign(acc[tied]).tolist())
        steps |= set(np.clip(acc // (2 * half), -1000, 1000).ravel().tolist())
        shifts_met |= set(shifts.tolist())
        highest, lowest = max(highest, int(acc.max())), min(lowest, int(acc.min()))
    assert ties == {-1, 1}
    assert {-1000, -129, -128, 127, 1000} <= steps
    assert (min(shifts_met), max(shifts_met)) == (1, 15 if op is Op.TAIL else contract.SHIFT_MAX)
    # The proof counts 2^(s-1) more than a sum, and q = -128 everywhere.
    assert highest > 0.99 * contract.ACCUMULATOR_MAX
    assert lowest < -0.98 * contract.ACCUMULATOR_MAX


Fault = Callable[[pytest.MonkeyPatch], None]


def rounds(rounded: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Fault:
    """A fault: acc / 2^shift is rounded another way, in the tail too."""

    def faulty(
        acc: np.ndarray, shift: np.ndarray, *, relu: bool = False, bits: int = 8
    ) -> np.ndarray:
        return np.clip(rounded(acc, shift), 0 if relu else -128, 127).astype(np.int8)

    def faulty_tail(pixels: np.ndarray, acc: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return np.clip(pixels.astype(np.int64) - rounded(acc, shift), 0, 255).astype(np.uint8)

    def apply(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(intmath, "requantise", faulty)
        patch.setattr(intmath, "tail_pixels", faulty_tail)

    return apply


def true_round(acc: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (acc + np.left_shift(np.int64(1), shift - 1)) >> shift


def away(acc: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.sign(acc) * true_round(np.abs(acc), shift)


def to_even(acc: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.rint(acc / 2.0**shift).astype(np.int64)


def convolves(change: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Fault:
    """A fault: x [h, w, I], weight or bias are not what they should be."""
    true = intmath.convolve

    def faulty(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
        return true(*change(x, weight, bias), stride)

    return lambda patch: patch.setattr(intmath, "convolve", faulty)


def replicates_the_border(patch: pytest.MonkeyPatch) -> None:
    """A fault: 3x3 windows find the outermost pixels again where zeros should be."""
    true = intmath.convolve

    def faulty(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
        if weight.shape[-1] == 1:
            return true(x, weight, bias, stride)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
        return true(padded, weight, bias, 1)[1:-1:stride, 1:-1:stride]

    patch.setattr(intmath, "convolve", faulty)


def accumulates(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    true = intmath.convolve
    return lambda patch: patch.setattr(
        intmath, "convolve", lambda *arguments: change(true(*arguments))
    )


def joins(faulty: Callable[..., np.ndarray]) -> Fault:
    return lambda patch: patch.setattr(intmath, "join", faulty)


# A tail's shift is 15 at most: before its sum leaves 24 or 31 bits, the pixel is at its end.
ALL = set(Op)
INT32 = contract.ACCUMULATOR_MAX
SQUARE = {Op.CONV3X3, Op.CONV3X3_STRIDE2, Op.TAIL}
FAULTS: dict[str, tuple[Fault, set[Op]]] = {
    "ties away from zero": (rounds(away), ALL),
    "ties to even": (rounds(to_even), ALL),
    "truncation": (rounds(lambda acc, shift: acc >> shift), ALL),
    "a float32 accumulator": (
        accumulates(lambda acc: np.clip(acc.astype(np.float32).astype(np.int64), -INT32, INT32)),
        ALL - {Op.TAIL},
    ),
    "an accumulator of 31 bits": (
        accumulates(lambda acc: np.clip(acc, -(2**30), 2**30)),
        ALL - {Op.TAIL},
    ),
    "an accumulator that wraps at 31 bits": (
        accumulates(lambda acc: (acc + 2**30) % 2**31 - 2**30),
        ALL,
    ),
    "rows and columns of taps swapped": (
        convolves(lambda x, weight, bias: (x, weight.transpose(0, 1, 3, 2), bias)),
        SQUARE,
    ),
    "input channels reversed": (
        convolves(lambda x, weight, bias: (x[..., ::-1], weight, bias)),
        ALL,
    ),
    "a border that is not zero": (replicates_the_border, SQUARE),
    "bias forgotten": (convolves(lambda x, weight, bias: (x, weight, 0 * bias)), ALL),
    "joined before the shift": (
        joins(lambda acc, q, shift, bits=8: acc + q),
        ALL - {Op.TAIL},
    ),
    "join forgotten": (joins(lambda acc, q, shift, bits=8: acc), ALL - {Op.TAIL}),
    "ReLU forgotten": (
        lambda patch: patch.setattr(
            intmath,
            "requantise",
            lambda acc, shift, relu=False, bits=8, true=intmath.requantise: true(acc, shift),
        ),
        ALL - {Op.TAIL},
    ),
    "shuffle with dy and dx swapped": (
        lambda patch: patch.setattr(
            interpret, "shuffle", lambda q, true=interpret.shuffle: true(_swapped(q))
        ),
        {Op.UP},
    ),
    "pixel - 127": (
        lambda patch: patch.setattr(
            intmath,
            "quantise_image",
            lambda image: np.clip(image.astype(np.int64) - 127, -128, 127).astype(np.int8),
        ),
        ALL,
    ),
}


def _swapped(q: np.ndarray) -> np.ndarray:
    blocks = q.reshape(*q.shape[:2], -1, 2, 2)
    return blocks.transpose(0, 1, 2, 4, 3).reshape(q.shape)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_seen_by_every_operation_that_has_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, ops = FAULTS[name]
    right = {case.name: trace_crc(case) for case in CASES}
    fault(monkeypatch)
    seen = {case.name for case in CASES if trace_crc(case) != right[case.name]}
    for op in ops:
        assert any(case.startswith(f"{op.name.lower()}-") for case in seen), op


def trace_crc(case: Case) -> int:
    trace = interpret.run_traced(case.graph, case.frame)[1]
    return zlib.crc32(np.ascontiguousarray(trace[UNDER_TEST]).tobytes())


def test_the_raw_files_are_enough(tmp_path: Path) -> None:
    """Each output follows from the files beside it, read as docs/FORMAT.md says."""
    write_vectors(tmp_path, with_capability(channel_block=4))
    index = json.loads((tmp_path / "index.json").read_text())
    assert set(index["corners"]) == {case.name for case in CASES}
    for name, entry in index["corners"].items():
        folder = tmp_path / "corners" / name
        data = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert entry["crc32"] == {file: zlib.crc32(data[file]) for file in sorted(data)}

        def read(side: str, entry: dict = entry, data: dict = data) -> np.ndarray:
            return np.frombuffer(data[f"{side}.bin"], entry[side]["dtype"]).reshape(
                entry[side]["shape"]
            )

        op = Op[entry["op"]]
        weight = blobs.from_stream(
            data["weights.bin"], tuple(entry["weight_shape"]), entry["channel_block"], name
        )
        rows = unpack_table(ChannelRecord, data["channels.bin"], name)
        bias, shift, join_shift = (
            np.array([getattr(row, field) for row in rows])
            for field in ("bias", "shift", "join_shift")
        )
        acc = intmath.convolve(read("input"), weight, bias, op.stride)
        if "join" in entry:
            joined = read("join")
            acc = acc + (interpret.unshuffle(joined) if op is Op.UP else joined) * 2**join_shift
        if op is Op.TAIL:
            frame = read_bundle(data["model.slb"]).vectors.input
            made = intmath.tail_pixels(interpret.pad_to_grid(frame, 2), acc, shift)
        else:
            made = np.clip(true_round(acc, shift), 0 if entry["relu"] else -128, 127)
            made = interpret.shuffle(made) if op is Op.UP else made
        assert np.array_equal(made, read("output")), name


def test_a_narrow_accumulator_is_respected() -> None:
    chip = with_capability(accumulator_bits=24)
    for case in fitting_cases(chip):
        layer = next(layer for layer in case.graph.layers if layer.name == UNDER_TEST)
        assert case.graph.accumulator_bits(layer) <= 24
        pack_case(case, chip)


def test_a_chip_without_an_operation_gets_the_others() -> None:
    ops = [op.name for op in Op if op is not Op.UP]
    names = {case.name for case in fitting_cases(with_capability(ops=ops, max_width=8))}
    assert names
    assert not any(name.startswith("up-") for name in names)
    assert all(name.rpartition("-")[2][0] in "158 2".replace(" ", "") for name in names)


def test_command_writes_corners_and_layers(tmp_path: Path) -> None:
    graph = random_graph(3, TINY)
    (tmp_path / "model.slb").write_bytes(pack_bundle(graph, REFERENCE))
    arguments = ["vectors", str(tmp_path / "out"), "--bundle", str(tmp_path / "model.slb")]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "index.json")])
    assert result.exit_code == 0, result.output
    assert f"{len(CASES)} corner cases, {len(graph.layers) + 2} files of layers" in result.output
    index = json.loads((tmp_path / "index.json").read_text())
    assert index == json.loads((tmp_path / "out" / "index.json").read_text())
    bundle = read_bundle(tmp_path / "model.slb")
    crcs = [
        zlib.crc32((tmp_path / "out" / "layers" / name).read_bytes()) for name in index["layers"]
    ]
    assert crcs[1:-1] == list(bundle.vectors.layer_crc32)
    assert crcs[-1] == zlib.crc32(bundle.vectors.output.tobytes())


def test_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for arguments, message in (
        ([str(tmp_path / "file")], "out must be a folder"),
        ([str(tmp_path / "out"), "--bundle", str(tmp_path / "none.slb")], "file must exist"),
        ([str(tmp_path / "out"), "--bundle", str(tmp_path / "file")], "size must be at least"),
        ([str(tmp_path / "out"), "--chip", "none"], "name must be one of"),
    ):
        result = CliRunner().invoke(main, ["vectors", *arguments])
        assert result.exit_code != 0
        assert message in result.output
        assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()
