"""The C99 firmware runtime by the bundle's stripe plan."""

from collections.abc import Mapping, Sequence

import numpy as np

from hls_export.executors.c_runtime import CRuntime
from hls_export.executors.executor import Result
from quant.interpret import Trace
from quant.intmath import UInt8Array


class PlannedRuntime(CRuntime):
    """Tile by tile through SRAM; the whole frame when a bundle holds no plan.

    A layer that stands in several groups must give the same values in each: otherwise refused.
    """

    name = "c-planned"

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        model = self.native().Model(bundle)
        if not model.planned:
            return Result(*model.run(image, trace=True))
        output, layers, again = model.run_planned(image, trace=True)
        check_same(layers, again)
        return Result(output, layers)


def check_same(layers: Trace, again: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Hold what a layer gave in later groups against the first.

    again: layer -> int8 [h, w, C] of each later group. Raises ValueError naming the first layer
    that differs, and where.
    """
    for name, copies in again.items():
        for number, copy in enumerate(copies, start=2):
            if not np.array_equal(copy, layers[name]):
                y, x, c = (int(i) for i in np.argwhere(copy != layers[name])[0])
                raise ValueError(
                    f"layer {name}: values must be the same in each of its groups, got another at "
                    f"[y {y}, x {x}, channel {c}] in group {number} of {len(copies) + 1}"
                )
