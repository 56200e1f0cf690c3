"""One face, many machines: names, results, refusals, and what a machine that is not there says."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from strategies import EDGE, TINY, graphs, images, random_graph, random_image

from hls_export.bundle import pack_bundle
from hls_export.executors import EXECUTORS, Executor
from hls_export.executors.c_runtime import CRuntime, native
from hls_export.executors.native import BUILD
from hls_export.npu import load_chip
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = load_chip("reference")
GRAPH = random_graph(1, TINY)
BUNDLE = pack_bundle(GRAPH, REFERENCE)
THERE = [executor for executor in EXECUTORS if executor.available() is None]


def named(executor: Executor) -> str:
    return executor.name


def test_names_differ_and_the_golden_model_comes_first() -> None:
    names = [executor.name for executor in EXECUTORS]
    assert len(set(names)) == len(names)
    assert names[0] == "numpy"
    assert EXECUTORS[0].available() is None


@given(graphs(), images())
@example(random_graph(0, TINY, "edges"), random_image(0, 1, 1))
def test_every_machine_computes_the_same(graph: IntegerGraph, image: UInt8Array) -> None:
    bundle = pack_bundle(graph, REFERENCE)
    output, trace = interpret.run_traced(graph, image)
    for executor in THERE:
        result = executor.run(bundle, image)
        assert result.output.dtype == np.uint8
        assert np.array_equal(result.output, output)
        assert list(result.layers) == list(trace)
        for name, expected in trace.items():
            assert result.layers[name].dtype == expected.dtype
            assert np.array_equal(result.layers[name], expected)


@pytest.mark.parametrize("executor", THERE, ids=named)
def test_image_that_is_none_is_refused(executor: Executor) -> None:
    image = random_image(0, 4, 4)
    for wrong in (image[:, :, :2], image[0], image[:0], np.zeros((0, 0, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"image: shape must be \(H, W, 3\) with H and W"):
            executor.run(BUNDLE, wrong)
    for other in (image.astype(np.int8), image.astype(np.float32), image.tolist()):
        with pytest.raises(
            TypeError, match=r"image: array must be uint8, got (int8|float32|list)$"
        ):
            executor.run(BUNDLE, other)


@pytest.mark.parametrize("executor", THERE, ids=named)
def test_image_of_any_strides_is_taken(executor: Executor) -> None:
    image = random_image(2, 12, 10)
    for view in (image[::2, ::3], image[::-1], image.transpose(1, 0, 2)):
        assert np.array_equal(executor.run(BUNDLE, view).output, interpret.run(GRAPH, view))


@pytest.mark.parametrize("executor", THERE, ids=named)
def test_damaged_bundle_is_refused(executor: Executor) -> None:
    for damaged in (b"", BUNDLE[:-1], BUNDLE[:300] + b"\xff" + BUNDLE[301:]):
        with pytest.raises(ValueError, match=r"^bundle: "):
            executor.run(damaged, random_image(0, 2, 2))


def test_c_runtime_names_the_build_command_when_it_is_not_built() -> None:
    code = (
        "import sys; sys.modules['hls_export.executors._runtime'] = None\n"
        "from hls_export.executors import EXECUTORS\n"
        "print({e.name: e.available() for e in EXECUTORS}['c'])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("C runtime: native module must be built, got ")
    assert printed.endswith(f"run `{BUILD}`\n")


def test_c_runtime_is_available_here() -> None:
    assert CRuntime().available() is None


def test_threads_share_a_model() -> None:
    """The interpreter lock is released, and no run disturbs another."""
    graph = random_graph(3, EDGE)
    model = native().Model(pack_bundle(graph, REFERENCE))
    frames = [random_image(seed, 40 + seed, 50) for seed in range(4)]
    outputs: list[UInt8Array | None] = [None] * len(frames)

    def work(index: int) -> None:
        outputs[index] = model.run(frames[index])[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for frame, output in zip(frames, outputs, strict=True):
        assert np.array_equal(output, interpret.run(graph, frame))


def test_model_without_a_trace_gives_the_output_alone() -> None:
    image = random_image(4, 7, 5)
    output, layers = native().Model(BUNDLE).run(image)
    assert np.array_equal(output, interpret.run(GRAPH, image))
    assert layers == {}


def test_model_tests_itself_and_keeps_its_bytes() -> None:
    model = native().Model(bytes(bytearray(BUNDLE)))
    assert model.self_test() is None
    cells = 11 * 19
    assert model.arena_bytes(width=37, height=21) == cells * model.arena_bytes(1, 1)
    with pytest.raises(ValueError, match="image must fit the chip's largest frame"):
        model.arena_bytes(3841, 1)


def test_executors_load_no_torch() -> None:
    code = (
        "import sys, hls_export.executors, hls_export.verify\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
