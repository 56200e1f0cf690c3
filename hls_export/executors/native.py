"""The native modules of this package."""

from importlib import import_module
from types import ModuleType

BUILD = "pip install -e . --no-build-isolation"


def load(what: str, module: str) -> ModuleType:
    """hls_export.executors.MODULE; raises ImportError with the command that builds it."""
    try:
        return import_module(f"hls_export.executors.{module}")
    except ImportError as error:
        raise ImportError(
            f"{what}: native module must be built, got {error}; run `{BUILD}`"
        ) from error
