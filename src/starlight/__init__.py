"""Starlight: co-design of camera denoising networks and the chips that run them.

`import starlight` loads neither torch nor any part of the package: `starlight.Denoiser` is
resolved on first use.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlight.denoise.denoiser import Denoiser

try:
    __version__ = version("starlight")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0+unknown"

__all__ = ["Denoiser", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Denoiser":
        from starlight.denoise.denoiser import Denoiser

        return Denoiser
    raise AttributeError(f"module 'starlight' has no attribute {name!r}")
