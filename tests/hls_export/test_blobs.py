"""Streaming order against its definition, written out index by index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from hls_export.blobs import from_stream, layer_offsets, stream_bytes, to_stream

shapes = st.tuples(st.integers(1, 20), st.integers(1, 9), st.sampled_from([1, 3])).map(
    lambda shape: (*shape, shape[2])
)
blocks = st.sampled_from([1, 2, 4, 8, 16, 32, 64])


@given(shapes, blocks, seeds)
def test_order_is_block_row_column_input_lane(shape, block: int, seed: int) -> None:
    weight = np.random.default_rng(seed).integers(-127, 128, shape, dtype=np.int8)
    stream = to_stream(weight, block)
    outputs, inputs, rows, columns = shape
    expected = [
        int(weight[first + lane, i, y, x]) if first + lane < outputs else 0
        for first in range(0, outputs, block)
        for y in range(rows)
        for x in range(columns)
        for i in range(inputs)
        for lane in range(block)
    ]
    assert np.frombuffer(stream, np.int8).tolist() == expected
    assert len(stream) == stream_bytes(shape, block)
    back = from_stream(stream, shape, block, "x")
    assert back.dtype == np.int8
    assert np.array_equal(back, weight)


def test_stream_that_is_not_of_its_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="layer x weights must have 24 bytes, got 23"):
        from_stream(bytes(23), (3, 3, 1, 1), 8, "layer x")
    with pytest.raises(ValueError, match="layer x lanes beyond channel 2 must be 0"):
        from_stream(bytes([1] * 24), (3, 3, 1, 1), 8, "layer x")


def test_layers_start_at_multiples_of_64_without_a_tail() -> None:
    assert layer_offsets([1, 64, 65, 3]) == [0, 64, 128, 256, 259]
