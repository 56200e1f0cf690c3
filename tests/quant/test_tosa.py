"""The TOSA reference model, a golden that shares no arithmetic with ours: same bits, by ==."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import FORMS, STYLES, TINY, graphs, images, random_graph, random_image

from quant.integer_graph import IntegerGraph
from quant.interpret import run_traced
from quant.intmath import UInt8Array
from quant.topology import Topology

pytest.importorskip("tosa_reference_model", reason="tosa-tools is not installed")
import tosa_graph
from tosa_serializer import RoundingMode

TWO_LEVELS = Topology(widths=(4, 6, 8), growths=(2, 3, 4))


def assert_same_bits(graph: IntegerGraph, image: UInt8Array, lowering: tosa_graph.Lowering) -> None:
    """The image and what every layer wrote."""
    output, trace = tosa_graph.run_traced(graph, image, lowering)
    expected, maps = run_traced(graph, image)
    assert list(trace) == list(maps)
    for name, values in maps.items():
        assert trace[name].dtype == values.dtype, name
        assert np.array_equal(trace[name], values), name
    assert np.array_equal(output, expected)


@given(graphs(), images())
@pytest.mark.parametrize("lowering", tosa_graph.LOWERINGS)
def test_any_graph(lowering: tosa_graph.Lowering, graph: IntegerGraph, image: UInt8Array) -> None:
    assert_same_bits(graph, image, lowering)


@pytest.mark.parametrize("lowering", tosa_graph.LOWERINGS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("form", FORMS)
def test_two_levels(form: Any, style: Any, lowering: tosa_graph.Lowering) -> None:
    assert_same_bits(random_graph(4, TWO_LEVELS, style, form), random_image(4, 19, 26), lowering)


def test_other_roundings_differ() -> None:
    """What TOSA rounds otherwise, it tells apart: the equality above can fail."""
    graph, image = random_graph(1, TINY, "edges"), random_image(1, 21, 38)
    expected, _ = run_traced(graph, image)
    inexact, _ = tosa_graph.run_traced(graph, image, rounding=RoundingMode.DOUBLE_ROUND)
    assert not np.array_equal(inexact, expected)
