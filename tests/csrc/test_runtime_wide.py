"""16-bit buffers, narrow weights and multipliers: the runtime's bits, whole and by a plan."""

import numpy as np
import pytest
from hypothesis import example, given
from runtime_library import Model
from strategies import STYLES, TINY, Form, graphs, images, random_graph, random_image
from wide_bundles import WIDE, doubled_plan, wide_chip, with_section

from hls_export.bundle import pack_bundle
from hls_export.executors.c_runtime import native
from hls_export.npu import load_chip
from hls_export.plan_section import pack_plan
from hls_export.planner import plan_stripes
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array

NEW: tuple[Form, ...] = ("wide", "multiplier")


@given(graphs(forms=NEW), images())
@example(random_graph(0, TINY, "edges", "wide"), random_image(0, 1, 1))
@example(random_graph(0, TINY, "edges", "multiplier"), random_image(0, 5, 9))
def test_every_layer_is_the_golden_models(graph: IntegerGraph, image: UInt8Array) -> None:
    model = native().Model(pack_bundle(graph, WIDE))
    output, trace = interpret.run_traced(graph, image)
    got, layers = model.run(image, trace=True)
    assert np.array_equal(got, output)
    for name, expected in trace.items():
        assert layers[name].dtype == expected.dtype
        assert np.array_equal(layers[name], expected), name
    assert model.self_test() is None


@pytest.mark.parametrize("form", NEW)
@pytest.mark.parametrize("block", [1, 2, 4, 16, 32, 64])
def test_every_channel_block(block: int, form: Form) -> None:
    chip = wide_chip(load_chip("reference"), channel_block=block)
    for style in STYLES:
        graph, image = random_graph(3, TINY, style, form), random_image(3, 9, 14)
        output, _ = native().Model(pack_bundle(graph, chip)).run(image)
        assert np.array_equal(output, interpret.run(graph, image))


@given(graphs(forms=NEW), images())
def test_a_plan_with_room_for_two_bytes_a_value(graph: IntegerGraph, image: UInt8Array) -> None:
    plan = doubled_plan(pack_plan(graph, plan_stripes(graph, WIDE)))
    model = native().Model(with_section(pack_bundle(graph, WIDE), "PLAN", plan))
    output, trace = interpret.run_traced(graph, image)
    got, layers, _ = model.run_planned(image, trace=True)
    assert np.array_equal(got, output)
    for name, expected in trace.items():
        assert np.array_equal(layers[name], expected), name


def test_a_plan_without_that_room_is_refused() -> None:
    """The windows of the narrow twin: of the same shapes, at half the bytes."""
    narrow, graph = random_graph(1, TINY), random_graph(1, TINY, "natural", "wide")
    plan = pack_plan(narrow, plan_stripes(narrow, load_chip("reference")))
    bundle = pack_bundle(graph, WIDE)
    assert Model(with_section(bundle, "PLAN", plan)).status == "SL_BAD_PLAN_GROUP"
    assert Model(with_section(bundle, "PLAN", doubled_plan(plan))).status == "SL_OK"
