"""The native module of the operators, starlight.ops._library: there or not, and its loading."""

from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

import torch

BUILD: Final = "`python setup.py build_ext --inplace` builds it"


def _file() -> Path | None:
    paths = (Path(__file__).with_name(f"_library{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def built() -> bool:
    """Whether the fused operators can be loaded here."""
    return _file() is not None


@cache
def load() -> None:
    """Register the native kernels with torch.

    Raises ImportError when the module is missing or was built against another torch.
    """
    path = _file()
    if path is None:
        raise ImportError(f"operators: native module must be built, got none; {BUILD}")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"operators: native module must fit torch {torch.__version__}, got {error}; {BUILD}"
        ) from error
