"""Equality of IntegerGraphs, array by array."""

import numpy as np

from quant.graph_files import graph_to_dict
from quant.integer_graph import IntegerGraph, layer_arrays


def assert_same_graph(got: IntegerGraph, expected: IntegerGraph) -> None:
    """Names, shapes, views and every number are equal."""
    assert graph_to_dict(got) == graph_to_dict(expected)
    for mine, theirs in zip(got.layers, expected.layers, strict=True):
        arrays, wanted = layer_arrays(mine), layer_arrays(theirs)
        assert arrays.keys() == wanted.keys()
        for name, array in arrays.items():
            assert np.array_equal(array, wanted[name]), (theirs.name, name)
