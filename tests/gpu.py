"""The kernels of a test on a GPU, behind the face that tests/emulator.py has."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import emulator
import native_build
import torch

FLAGS: Final = ("-std=c++20", "-x", "cu", "--forward-unknown-to-host-compiler")


@cache
def missing() -> str | None:
    """What this machine lacks to run a kernel on a GPU, in words for a skipped test; else None."""
    if shutil.which("nvcc") is None:
        return "nvcc is not on the PATH"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    return None


@cache
def operators_missing() -> str | None:
    """What is missing to run torch's operators on a GPU, in the same words; else None."""
    from starlight.ops import native

    if not torch.cuda.is_available():
        return "torch sees no GPU"
    native.load()
    return None if torch.ops.starlight.cuda_built() else "the operators were built without CUDA"


def compile_kernels(sources: Sequence[Path], targets: Sequence[str]) -> Path:
    """Sources of `emulator.build` by nvcc; `targets` are its options that name architectures."""
    includes = [emulator.CUDA, emulator.EMULATOR, native_build.CONTRACT]
    flags = (*FLAGS, *targets)
    return native_build.build_shared(sources, includes, flags, compiler="nvcc")


def build(sources: Sequence[Path]) -> ctypes.CDLL:
    library = ctypes.CDLL(str(compile_kernels(sources, ["-arch=native"])))
    library.session_error.restype = ctypes.c_char_p
    return library


class Gpu:
    """torch's current device: arrays are copied there when they are named, and back by a call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._held: list[torch.Tensor] = []
        self._results: list[tuple[torch.Tensor, torch.Tensor]] = []  # host, device

    def input(self, name: str, data: Any, *, misalignment: int = 0) -> int:
        del name
        host = _bytes(data)
        memory = torch.zeros(host.numel() + misalignment, dtype=torch.uint8, device="cuda")
        device = memory[misalignment:]
        device.copy_(host)
        self._held.append(memory)
        return device.data_ptr()

    def memory(self, name: str, data: Any, *, misalignment: int = 0) -> int:
        address = self.input(name, data, misalignment=misalignment)
        self._results.append((_bytes(data), self._held[-1][misalignment:]))
        return address

    output = memory

    def call(self, function: str, *arguments: int) -> None:
        """`function(stream, *arguments)` of the library. Raises RuntimeError with CUDA's error."""
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        converted = (ctypes.c_int64(argument) for argument in arguments)
        if getattr(self._library, function)(stream, *converted) != 0:
            raise RuntimeError(self._library.session_error().decode())
        torch.cuda.synchronize()
        for host, device in self._results:
            host.copy_(device)


def _bytes(data: Any) -> torch.Tensor:
    """The memory of a contiguous array or tensor, as uint8."""
    return torch.as_tensor(data).view(-1).view(torch.uint8)
