"""The golden model: what an IntegerGraph computes, written to be read.

Every other machine (C runtime, host engine, synthesised hardware) is held against this one, layer
by layer and bit by bit. Arrays are [height, width, channels] throughout.
"""

import numpy as np
import numpy.typing as npt

from quant import contract, intmath
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View
from quant.intmath import Activations, Int64Array, UInt8Array

Trace = dict[str, npt.NDArray[np.int8] | npt.NDArray[np.int16] | npt.NDArray[np.uint8]]
Maps = dict[str, Activations]  # buffer name -> int8 or int16 [H >> level, W >> level, channels]


def run(graph: IntegerGraph, image: UInt8Array) -> UInt8Array:
    """Denoise: uint8 [H, W, 3] to uint8 [H, W, 3], any H and W from 1.

    Raises TypeError when the image is not uint8, ValueError when its shape is not [H, W, 3].
    """
    return run_traced(graph, image)[0]


def run_traced(graph: IntegerGraph, image: UInt8Array) -> tuple[UInt8Array, Trace]:
    """`run`, and what each layer wrote.

    The trace maps a layer's name to the int8 or int16 [h, w, C] of its output view, at the size of
    the padded image; to the padded output image, uint8, for the tail. Raises as `run` does.
    """
    padded = pad_to_grid(image, graph.grid)
    maps = _allocate(graph, padded)
    trace: Trace = {}
    for layer in graph.layers:
        sums = _sums(graph, layer, maps)
        if layer.output is None:
            trace[layer.name] = _pixels(graph, layer, sums, padded)
        else:
            _view(maps, layer.output)[...] = _activations(graph, layer, sums, maps)
            trace[layer.name] = _view(maps, layer.output).copy()
    height, width, _ = image.shape
    output = trace[graph.layers[-1].name][:height, :width]
    return output.astype(np.uint8), trace


def largest_sums(graph: IntegerGraph, image: UInt8Array) -> dict[str, int]:
    """The largest |acc| of each layer on an image, a dyadic join included. Raises as `run` does."""
    maps = _allocate(graph, pad_to_grid(image, graph.grid))
    found = {}
    for layer in graph.layers:
        sums = _sums(graph, layer, maps)
        found[layer.name] = int(np.abs(sums).max())
        if layer.output is not None:
            _view(maps, layer.output)[...] = _activations(graph, layer, sums, maps)
    return found


def pad_to_grid(image: UInt8Array, grid: int) -> UInt8Array:
    """Replicate the last column and row, right and bottom, up to multiples of `grid`.

    image uint8 [H, W, 3]; returns uint8 [ceil(H / grid) * grid, ceil(W / grid) * grid, 3].
    Raises TypeError when the image is not uint8, ValueError when its shape is not [H, W, 3].
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"image: array must be uint8, got {got}")
    channels = contract.IMAGE_CHANNELS
    if image.ndim != 3 or image.shape[2] != channels or image.size == 0:
        raise ValueError(
            f"image: shape must be (H, W, {channels}) with H and W from 1, got {image.shape}"
        )
    bottom, right = -image.shape[0] % grid, -image.shape[1] % grid
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")


def _allocate(graph: IntegerGraph, padded: UInt8Array) -> Maps:
    height, width, _ = padded.shape
    maps = {
        buffer.name: np.zeros(
            (height >> buffer.level, width >> buffer.level, buffer.channels),
            dtype=np.int8 if buffer.bits == contract.ACTIVATION_BITS else np.int16,
        )
        for buffer in graph.buffers
    }
    maps[IMAGE][...] = intmath.quantise_image(padded)
    return maps


def _view(maps: Maps, view: View) -> Activations:
    return maps[view.buffer][:, :, view.offset : view.end]


def _sums(graph: IntegerGraph, layer: Layer, maps: Maps) -> Int64Array:
    """Accumulators [h, w, O], before the shuffle for UP; dyadic ones with the join."""
    acc = intmath.convolve(_view(maps, layer.input), layer.weight, layer.bias, layer.op.stride)
    if layer.join is None or not graph.dyadic:
        return acc
    bits = graph.buffer(layer.join.buffer).bits
    return intmath.join(acc, _joined(layer, layer.join, maps), graph.join_shift(layer), bits=bits)


def _joined(layer: Layer, view: View, maps: Maps) -> Activations:
    """What joins the accumulators, value by value, [h, w, O]."""
    q = _view(maps, view)
    return unshuffle(q) if layer.op is Op.UP else q


def _activations(graph: IntegerGraph, layer: Layer, sums: Int64Array, maps: Maps) -> Activations:
    assert layer.output is not None
    bits = graph.buffer(layer.output.buffer).bits
    if layer.multipliers is None:
        q = intmath.requantise(sums, graph.shift(layer), relu=layer.relu, bits=bits)
    else:
        m, r, n = layer.multipliers
        joined = 0 if layer.join is None else _joined(layer, layer.join, maps)
        rounded = intmath.rounded_product(sums, m, n, joined, r)
        q = intmath.saturate(rounded, relu=layer.relu, bits=bits)
    return shuffle(q) if layer.op is Op.UP else q


def _pixels(graph: IntegerGraph, layer: Layer, sums: Int64Array, padded: UInt8Array) -> UInt8Array:
    if layer.multipliers is None:
        return intmath.tail_pixels(padded, sums, graph.shift(layer))
    return intmath.multiplier_tail_pixels(
        padded, sums, layer.multipliers.multiplier, layer.multipliers.shift
    )


def shuffle(q: Activations) -> Activations:
    """[h, w, 4C] to [2h, 2w, C]: channel 4c + 2dy + dx goes to channel c of (2y + dy, 2x + dx)."""
    height, width, channels = q.shape
    blocks = q.reshape(height, width, channels // 4, 2, 2)  # [y, x, c, dy, dx]
    return blocks.transpose(0, 3, 1, 4, 2).reshape(2 * height, 2 * width, channels // 4)


def unshuffle(q: Activations) -> Activations:
    """The inverse of `shuffle`: [2h, 2w, C] to [h, w, 4C]."""
    height, width, channels = q.shape
    blocks = q.reshape(height // 2, 2, width // 2, 2, channels)  # [y, dy, x, dx, c]
    return blocks.transpose(0, 2, 4, 1, 3).reshape(height // 2, width // 2, 4 * channels)
