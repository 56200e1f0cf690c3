"""Weights in the order in which the chip streams them, and back.

A layer's weight [O, I, k, k] becomes [ceil(O / B)][k][k][I][B] with B = channel_block: for each
block of B output lanes the taps row by row, for each tap the input channels, for each of these one
weight per lane. Lanes beyond O are zero.
"""

import numpy as np

from quant.integer_graph import IntArray

WEIGHT_ALIGNMENT = 64


def stream_bytes(shape: tuple[int, ...], block: int) -> int:
    """Bytes of a layer with weight shape (O, I, k, k) in streaming order."""
    outputs, inputs, rows, columns = shape
    return -(-outputs // block) * block * inputs * rows * columns


def to_stream(weight: IntArray, block: int) -> bytes:
    """int8 [O, I, k, k] -> bytes of int8 [ceil(O / B)][k][k][I][B]."""
    outputs, inputs, rows, columns = weight.shape
    blocks = -(-outputs // block)
    lanes = np.zeros((blocks * block, inputs, rows, columns), np.int8)
    lanes[:outputs] = weight
    grouped = lanes.reshape(blocks, block, inputs, rows, columns)
    return grouped.transpose(0, 3, 4, 2, 1).tobytes()


def from_stream(data: bytes, shape: tuple[int, ...], block: int, what: str) -> IntArray:
    """Bytes in streaming order -> int8 [O, I, k, k]; `what` names the layer in errors.

    Raises ValueError when the size is not `stream_bytes` or a lane beyond O is not zero.
    """
    outputs, inputs, rows, columns = shape
    if len(data) != stream_bytes(shape, block):
        raise ValueError(
            f"bundle: {what} weights must have {stream_bytes(shape, block)} bytes, got {len(data)}"
        )
    streamed = np.frombuffer(data, np.int8).reshape(-1, rows, columns, inputs, block)
    lanes = streamed.transpose(0, 4, 3, 1, 2).reshape(-1, inputs, rows, columns)
    if lanes[outputs:].any():
        raise ValueError(f"bundle: {what} lanes beyond channel {outputs - 1} must be 0, got others")
    return np.ascontiguousarray(lanes[:outputs])


def layer_offsets(sizes: list[int]) -> list[int]:
    """Offsets of the layers in WGHT, each at the next multiple of 64; one more entry, the end."""
    offsets, end = [], 0
    for size in sizes:
        offset = -(-end // WEIGHT_ALIGNMENT) * WEIGHT_ALIGNMENT
        offsets.append(offset)
        end = offset + size
    return [*offsets, end]
