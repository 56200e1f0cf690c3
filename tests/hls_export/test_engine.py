"""The engine's own ways: instruction sets, dense blocks, threads, memory given, sizes."""

import threading

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
