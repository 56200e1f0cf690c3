"""The native modules of this package, and the executors that are one each."""

from importlib import import_module
from types import ModuleType
from typing import ClassVar

from hls_export.executors.executor import Result
from quant.intmath import UInt8Array

BUILD = "pip install -e . --no-build-isolation"


def load(what: str, module: str) -> ModuleType:
    """hls_export.executors.MODULE; raises ImportError with the command that builds it."""
    try:
        return import_module(f"hls_export.executors.{module}")
    except ImportError as error:
        raise ImportError(
            f"{what}: native module must be built, got {error}; run `{BUILD}`"
        ) from error


class NativeExecutor:
    """An executor whose module has Model(bundle).run(image, trace) -> (output, layers)."""

    name: ClassVar[str]
    what: ClassVar[str]
    module: ClassVar[str]

    @classmethod
    def native(cls) -> ModuleType:
        """The native module; raises ImportError with the command that builds it."""
        return load(cls.what, cls.module)

    def available(self) -> str | None:
        try:
            self.native()
        except ImportError as error:
            return str(error)
        return None

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        return Result(*self.native().Model(bundle).run(image, trace=True))
