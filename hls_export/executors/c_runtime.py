"""The C99 firmware runtime of csrc/runtime, called through its Python module."""

from importlib import import_module
from types import ModuleType

from hls_export.executors.executor import Result
from quant.intmath import UInt8Array

BUILD = "pip install -e . --no-build-isolation"


def native() -> ModuleType:
    """The native module; raises ImportError with the command that builds it."""
    try:
        return import_module("hls_export.executors._runtime")
    except ImportError as error:
        raise ImportError(
            f"C runtime: native module must be built, got {error}; run `{BUILD}`"
        ) from error


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
