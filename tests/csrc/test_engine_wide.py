"""The engine on 16-bit buffers and with multipliers: every instruction set, every sort of layer."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import STYLES, Form, Style, graphs, images, random_graph, random_image, seeds
from wide_bundles import WIDE

from hls_export.bundle import pack_bundle
from hls_export.executors.engine import native
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array
from quant.topology import Topology

NEW: tuple[Form, ...] = ("wide", "multiplier")
SETS = native().instruction_sets()
# On whole vectors: dense blocks in rolling rows, one and two vectors at once.
BLOCKS = (Topology((16, 32), (8, 40)), Topology((32, 16), (16, 24)), Topology((16, 5), (8, 3)))


def check(graph: IntegerGraph, image: UInt8Array, instruction_set: str, threads: int) -> None:
    model = native().Model(pack_bundle(graph, WIDE), instruction_set)
    output, trace = interpret.run_traced(graph, image)
    got, layers = model.run(image, trace=True, threads=threads)
    for name, expected in trace.items():
        assert layers[name].dtype == expected.dtype
        assert np.array_equal(layers[name], expected), name
    assert np.array_equal(got, output)
    assert np.array_equal(model.run(image, threads=threads)[0], output)


@pytest.mark.parametrize("instruction_set", SETS)
@settings(max_examples=15)
@given(
    st.sampled_from(BLOCKS),
    seeds,
    st.sampled_from(STYLES),
    st.sampled_from(NEW),
    images(40),
    st.integers(1, 3),
)
@example(BLOCKS[0], 0, "edges", "multiplier", random_image(0, 37, 39), 3)
@example(BLOCKS[1], 1, "natural", "wide", random_image(1, 3, 70), 2)
def test_dense_blocks(
    instruction_set: str,
    topology: Topology,
    seed: int,
    style: Style,
    form: Form,
    image: UInt8Array,
    threads: int,
) -> None:
    check(random_graph(seed, topology, style, form), image, instruction_set, threads)


@pytest.mark.parametrize("instruction_set", SETS)
@settings(max_examples=15)
@given(graphs(forms=NEW), images())
def test_odd_widths(instruction_set: str, graph: IntegerGraph, image: UInt8Array) -> None:
    check(graph, image, instruction_set, 2)


@pytest.mark.parametrize("form", NEW)
def test_frames_of_a_store_are_alike(form: Form) -> None:
    """A second frame of a size works in the memory of the first."""
    graph = random_graph(3, BLOCKS[0], "natural", form)
    model = native().Model(pack_bundle(graph, WIDE))
    for seed in range(3):
        image = random_image(seed, 150, 21)
        assert np.array_equal(model.run(image, threads=2)[0], interpret.run(graph, image))
