"""The graph of format_2_0.slb, a bundle as format 2.0 wrote it: never to be written again.

It was made by `PYTHONPATH=src:. python tests/hls_export/bundles/make_format_2_0.py OUT`. That of
format 1.0 with multipliers, buffers of 8 and 16 bits, weights of 4..8 bits.
"""

import sys
from pathlib import Path

import numpy as np
from make_format_1_0 import TOPOLOGY, chip, hashed

from hls_export.bundle import write_bundle
from quant.integer_graph import IMAGE, IntegerGraph, Requantisation
from quant.topology import LayerShape, Numbers, assemble, buffer_shapes

WIDE = (0, 3, 5)  # of the buffers behind the image


def graph() -> IntegerGraph:
    names = [name for name, _, _ in buffer_shapes(TOPOLOGY) if name != IMAGE]
    bits = {name: 16 if index in WIDE else 8 for index, name in enumerate(names)}
    scales = {name: 3.0 * 2.0 ** -(bits[name] - 2) for name in names} | {IMAGE: 2.0**-7}
    used = 0

    def numbers(shape: LayerShape) -> Numbers:
        nonlocal used
        count = int(np.prod(shape.weight_shape))
        outputs = shape.weight_shape[0]
        drawn = hashed(used, count + 2 * outputs)
        used += len(drawn)
        weight_bits = 4 + used % 5
        limit = 2 ** (weight_bits - 1) - 1
        weight = (drawn[:count] % (2 * limit + 1) - limit).astype(np.int8)
        bias, spread = drawn[count:].reshape(2, outputs)
        source = bits.get(shape.input.buffer, 8)
        target = 8 if shape.output is None else bits[shape.output.buffer]
        # Sums of fan_in products spread as its root: outputs then spread over their range.
        spreads = limit * np.sqrt(count / outputs) / (1 + spread / 2**16)
        join = 0.0 if shape.join is None else 2.0 ** (target - bits[shape.join.buffer])
        requantisation = Requantisation.nearest(2.0 ** (target - source) / spreads, join / 3)
        shaped = weight.reshape(shape.weight_shape)
        zeros = np.zeros(outputs, np.int64)
        return Numbers(shaped, zeros, bias % 2048 - 1024, weight_bits, requantisation)

    return assemble(TOPOLOGY, "format-2.0", {}, numbers, bits, scales)


if __name__ == "__main__":
    reference = chip()
    more = {
        "activation_bits": [8, 16],
        "weight_bits": [4, 8],
        "arithmetic": ["dyadic", "multiplier"],
    }
    able = reference.capability.model_copy(update=more)
    write_bundle(graph(), reference.model_copy(update={"capability": able}), Path(sys.argv[1]))
