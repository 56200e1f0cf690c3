"""The C99 firmware runtime by the bundle's stripe plan."""

from hls_export.executors.c_runtime import CRuntime
from hls_export.executors.executor import Result
from quant.intmath import UInt8Array


class PlannedRuntime(CRuntime):
    """Tile by tile through SRAM; the whole frame when a bundle holds no plan."""

    name = "c-planned"

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        model = self.native().Model(bundle)
        run = model.run_planned if model.planned else model.run
        return Result(*run(image, trace=True))
