"""The engine of csrc/engine, called through its Python module."""

from types import ModuleType

from hls_export.executors.executor import Result
from hls_export.executors.native import load
from quant.intmath import UInt8Array


def native() -> ModuleType:
    """The native module; raises ImportError with the command that builds it."""
    return load("engine", "_engine")


class Engine:
    """The network at the speed of this machine, on all its cores."""

    name = "engine"

    def available(self) -> str | None:
        try:
            native()
        except ImportError as error:
            return str(error)
        return None

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        return Result(*native().Model(bundle).run(image, trace=True))
