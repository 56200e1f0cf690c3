"""The graph of format_1_0.slb, a bundle as format 1.0 wrote it: never to be written again.

It was made by `PYTHONPATH=src:. python tests/hls_export/bundles/make_format_1_0.py OUT`. Numbers
are hashes of their places, so no generator's version matters; every operation, join and ReLU is
there, and channels that fill no block.
"""

import sys
from pathlib import Path

import numpy as np

from hls_export.bundle import write_bundle
from hls_export.npu import Chip, load_chip
from quant.integer_graph import IntegerGraph
from quant.topology import LayerShape, Numbers, Topology, assemble, buffer_shapes

TOPOLOGY = Topology(widths=(3, 2), growths=(1, 2))
WEIGHT_EXPONENT = 7


def hashed(start: int, count: int) -> np.ndarray:
    """int64 [count], in 0..65535."""
    place = np.arange(start, start + count, dtype=np.uint64)
    mixed = (place * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> np.uint64(15))) * 0x85EBCA6B) & 0xFFFFFFFF
    return (mixed >> np.uint64(16)).astype(np.int64)


def graph() -> IntegerGraph:
    names = [name for name, _, _ in buffer_shapes(TOPOLOGY) if name != "image"]
    exponents = {name: 5 + index % 2 for index, name in enumerate(names)}
    used = 0

    def numbers(shape: LayerShape) -> Numbers:
        nonlocal used
        count = int(np.prod(shape.weight_shape))
        outputs = shape.weight_shape[0]
        drawn = hashed(used, count + outputs)
        used += count + outputs
        weight = (drawn[:count] % 127 - 63).astype(np.int8).reshape(shape.weight_shape)
        bias = drawn[count:] % 2048 - 1024
        return weight, np.full(outputs, WEIGHT_EXPONENT, np.int64), bias

    return assemble(TOPOLOGY, "format-1.0", exponents, numbers)


def chip() -> Chip:
    reference = load_chip("reference")
    layout = {"channel_block": 4, "max_width": 64, "max_height": 48}
    capability = reference.capability.model_copy(update=layout)
    return reference.model_copy(update={"name": "example", "capability": capability})


if __name__ == "__main__":
    write_bundle(graph(), chip(), Path(sys.argv[1]))
