"""How a graph's buffers fill the range of their bits: histograms of the integers themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from quant import contract, intmath
from quant.integer_graph import IMAGE, IntArray, IntegerGraph
from quant.interpret import largest_sums, pad_to_grid, run_traced
from quant.intmath import UInt8Array

BINS: Final = 32  # of equal width, from the lowest integer to the highest


@dataclass(frozen=True)
class BufferRange:
    """What one buffer held, summed over images, channels and positions.

    exponent: value = q * 2^-exponent; None in a multiplier graph
    scale: the value of one unit; None when nobody knows
    counts: integers in each of `BINS` bins
    at_low, at_high: shares, 0..1, of integers at the range's very ends: what saturates lies there
    """

    name: str
    bits: int
    exponent: int | None
    scale: float | None
    counts: tuple[int, ...]
    at_low: float
    at_high: float

    @property
    def real_range(self) -> tuple[float, float] | None:
        """The values of the lowest and the highest integer."""
        if self.scale is None:
            return None
        low, high = contract.activation_range(self.bits)
        return low * self.scale, high * self.scale


def sum_bits(graph: IntegerGraph, images: Iterable[UInt8Array]) -> dict[str, int]:
    """Layer -> least two's complement width whose range holds every |acc| that the images reach.

    images: noisy uint8 [H, W, 3], of any sizes; at most `graph.accumulator_bits(layer)`, which
    holds for all images. Raises as `quant.interpret.run` does.
    """
    found = dict.fromkeys((layer.name for layer in graph.layers), 1)
    for image in images:
        for name, largest in largest_sums(graph, image).items():
            found[name] = max(found[name], largest.bit_length() + 1)
    return found


def buffer_ranges(graph: IntegerGraph, images: Iterable[UInt8Array]) -> list[BufferRange]:
    """A range per buffer, in the graph's order, of what the golden model writes.

    images: noisy uint8 [H, W, 3], of any sizes. Raises as `quant.interpret.run` does, and
    ValueError when there is no image.
    """
    counts = {buffer.name: np.zeros(1 << buffer.bits, dtype=np.int64) for buffer in graph.buffers}

    def add(name: str, integers: IntArray) -> None:
        low, _ = contract.activation_range(graph.buffer(name).bits)
        found = np.bincount(integers.astype(np.int64).ravel() - low, minlength=len(counts[name]))
        counts[name] += found

    for image in images:
        add(IMAGE, intmath.quantise_image(pad_to_grid(image, graph.grid)))
        _, trace = run_traced(graph, image)
        for layer in graph.layers:
            if layer.output is not None:  # every slice is written once
                add(layer.output.buffer, trace[layer.name])
    if not counts[IMAGE].any():
        raise ValueError("ranges: images must have at least one, got none")
    return [
        BufferRange(
            name=buffer.name,
            bits=buffer.bits,
            exponent=buffer.exponent if graph.dyadic else None,
            scale=buffer.scale if graph.dyadic else buffer.real_scale,
            counts=tuple(counts[buffer.name].reshape(BINS, -1).sum(1).tolist()),
            at_low=float(counts[buffer.name][0] / counts[buffer.name].sum()),
            at_high=float(counts[buffer.name][-1] / counts[buffer.name].sum()),
        )
        for buffer in graph.buffers
    ]
