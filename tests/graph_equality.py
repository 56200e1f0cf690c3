"""Equality of IntegerGraphs, array by array."""

import numpy as np

from quant.integer_graph import ARRAYS, IntegerGraph, graph_to_dict


def assert_same_graph(got: IntegerGraph, expected: IntegerGraph) -> None:
    """Names, shapes, views and every number are equal."""
    assert graph_to_dict(got) == graph_to_dict(expected)
    for mine, theirs in zip(got.layers, expected.layers, strict=True):
        for name in ARRAYS:
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), (theirs.name, name)
