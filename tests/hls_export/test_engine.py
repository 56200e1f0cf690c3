"""The engine's own ways: instruction sets, dense blocks, threads, memory given, sizes."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import STYLES, images, random_graph, random_image, seeds

from hls_export.bundle import pack_bundle
from hls_export.executors.engine import native
from hls_export.npu import load_chip
from quant import interpret
from quant.intmath import UInt8Array
from quant.topology import Topology

REFERENCE = load_chip("reference")
SETS = native().instruction_sets()

# Widths and growths on whole vectors are run in rolling rows: halves, wholes, both in one buffer;
# the others layer by layer.
BLOCKS = st.tuples(st.sampled_from((16, 32, 48, 5)), st.sampled_from((8, 16, 24, 32, 40, 3)))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    pairs = draw(st.lists(BLOCKS, min_size=2, max_size=3))
    return Topology(tuple(width for width, _ in pairs), tuple(growth for _, growth in pairs))


@pytest.mark.parametrize("instruction_set", SETS)
@given(topologies(), seeds, st.sampled_from(STYLES), images(40), st.integers(1, 5))
@example(Topology((16, 32), (8, 40)), 0, "edges", random_image(0, 37, 39), 3)
@example(Topology((32, 16), (16, 24)), 1, "natural", random_image(1, 3, 70), 2)
def test_every_layer_is_the_golden_models(
    instruction_set: str,
    topology: Topology,
    seed: int,
    style: str,
    image: UInt8Array,
    threads: int,
) -> None:
    graph = random_graph(seed, topology, style)  # type: ignore[arg-type]
    model = native().Model(pack_bundle(graph, REFERENCE), instruction_set)
    assert model.instruction_set == instruction_set
    output, trace = interpret.run_traced(graph, image)
    got, layers = model.run(image, trace=True, threads=threads)
    assert np.array_equal(got, output)
    assert list(layers) == list(trace)
    for name, expected in trace.items():
        assert np.array_equal(layers[name], expected), name
    assert np.array_equal(model.run(image, threads=threads)[0], output)


@settings(max_examples=5)
@given(seeds)
def test_rows_are_the_same_however_they_are_shared_out(seed: int) -> None:
    """High enough for several chunks a thread."""
    graph = random_graph(seed, Topology((16, 16), (8, 16)))
    model = native().Model(pack_bundle(graph, REFERENCE))
    image = random_image(seed, 530, 21)
    output = interpret.run(graph, image)
    for threads in (1, 2, 3, 7):
        assert np.array_equal(model.run(image, threads=threads)[0], output)


@pytest.mark.parametrize("instruction_set", SETS)
def test_largest_sums_do_not_saturate(instruction_set: str) -> None:
    """Extremes everywhere: 16-bit halves of a dot product would overflow."""
    graph = random_graph(9, Topology((16, 16), (16, 8)), "edges")
    for value in (0, 255):
        image = np.full((9, 26, 3), value, np.uint8)
        model = native().Model(pack_bundle(graph, REFERENCE), instruction_set)
        assert np.array_equal(model.run(image)[0], interpret.run(graph, image))


def test_sets_are_listed_and_unknown_ones_refused() -> None:
    assert SETS[-1] == "portable"
    bundle = pack_bundle(random_graph(0), REFERENCE)
    assert native().Model(bundle).instruction_set == SETS[0]
    with pytest.raises(ValueError, match=r"instruction_set must be one of .*portable, got 'mmx'"):
        native().Model(bundle, "mmx")


def test_result_goes_where_it_is_told() -> None:
    graph = random_graph(0)
    model = native().Model(pack_bundle(graph, REFERENCE))
    image = random_image(3, 9, 8)
    out = np.zeros_like(image)
    given, _ = model.run(image, out=out)
    assert given is out
    assert np.array_equal(out, interpret.run(graph, image))
    for wrong in (out[:, :4], out.astype(np.int8), np.zeros((9, 8, 4), np.uint8), "out"):
        with pytest.raises(ValueError, match="out: array must be uint8, writeable"):
            model.run(image, out=wrong)
    with pytest.raises(ValueError, match="out: array must share no memory"):
        model.run(image, out=image)


def test_number_of_threads_is_checked() -> None:
    model = native().Model(pack_bundle(random_graph(0), REFERENCE))
    for threads in (-1, 1025):
        with pytest.raises(ValueError, match=f"threads must be in .*, got {threads}"):
            model.run(random_image(0, 4, 4), threads=threads)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two CPUs",
)
def test_threads_leave_the_callers_cpu_to_it() -> None:
    allowed = os.sched_getaffinity(0)
    model = native().Model(pack_bundle(random_graph(0), REFERENCE))
    before = set(os.listdir("/proc/self/task"))
    replay = native().Replay(model, random_image(0, 8, 8), 3)
    others = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
    assert len(others) == 2
    try:
        for cpu in sorted(allowed)[:2]:
            os.sched_setaffinity(0, {cpu})
            replay.run(0, 1)
            assert [os.sched_getaffinity(task) for task in others] == [allowed - {cpu}] * 2
    finally:
        os.sched_setaffinity(0, allowed)


def test_callers_share_a_model() -> None:
    """More callers and sizes than the store holds frames, at once."""
    graph = random_graph(3, Topology((16, 16), (8, 8)))
    model = native().Model(pack_bundle(graph, REFERENCE))
    frames = [random_image(seed, 20 + seed % 7, 30) for seed in range(14)]
    with ThreadPoolExecutor(7) as pool:
        outputs = list(pool.map(lambda frame: model.run(frame, threads=2)[0], frames))
    for frame, output in zip(frames, outputs, strict=True):
        assert np.array_equal(output, interpret.run(graph, frame))


def test_steps_can_be_run_one_by_one() -> None:
    graph = random_graph(0, Topology((16, 5), (8, 3)))
    model = native().Model(pack_bundle(graph, REFERENCE))
    replay = native().Replay(model, random_image(0, 8, 8), 1)
    assert "encoder.0.dense.conv1..encoder.0.dense.fuse" in replay.steps  # whole vectors
    assert "middle.dense.conv1" in replay.steps  # not so
    assert len(replay.steps) == len(graph.layers) - 2 * 3  # one block there, one back
    replay.run(len(replay.steps) - 1, 2)
    with pytest.raises(IndexError):
        replay.run(len(replay.steps))
