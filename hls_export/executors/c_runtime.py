"""The C99 firmware runtime of csrc/runtime, called through its Python module."""

from types import ModuleType

from hls_export.executors.executor import Result
from hls_export.executors.native import load
from quant.intmath import UInt8Array


def native() -> ModuleType:
    """The native module; raises ImportError with the command that builds it."""
    return load("C runtime", "_runtime")


class CRuntime:
    """The very code that firmware links, on this machine."""

    name = "c"

    def available(self) -> str | None:
        try:
            native()
        except ImportError as error:
            return str(error)
        return None

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        return Result(*native().Model(bundle).run(image, trace=True))
