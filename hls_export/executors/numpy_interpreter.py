"""The golden model on the graph that a bundle holds."""

from hls_export.bundle import read_bundle
from hls_export.executors.executor import Result
from quant.interpret import run_traced
from quant.intmath import UInt8Array


class NumpyInterpreter:
    """quant.interpret; always there, and what every other machine is held against."""

    name = "numpy"

    def available(self) -> str | None:
        return None

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        return Result(*run_traced(read_bundle(bundle).graph(), image))
