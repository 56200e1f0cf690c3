"""NVIDIA's run-time compiler, which CuPy uses, as a library: it needs no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import emulator
import native_build

INCLUDES = [emulator.CUDA, emulator.CUDA / "nvrtc", native_build.CONTRACT]


@cache
def _library() -> Path | None:
    package = importlib.util.find_spec("nvidia")
    folders = (
        [] if package is None else [Path(at) for at in package.submodule_search_locations or ()]
    )
    found = [path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*")]
    return max(found, default=None)


def missing() -> str | None:
    """Why nothing can be compiled here, in words for a skipped test; else None."""
    return None if _library() else "NVRTC is not installed (pip install nvidia-cuda-nvrtc)"


def compile_kernels(source: str, architecture: str) -> str:
    """PTX of `source`, which sees the folders of CUDA kernels; `architecture` like "sm_80".

    Raises RuntimeError with the compiler's own words.
    """
    path = _library()
    if path is None:
        raise RuntimeError(missing())
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(path))
    options = [f"--gpu-architecture={architecture}", "-std=c++20"]
    options += [f"-I{folder}" for folder in INCLUDES]
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
    )
    try:
        encoded = [option.encode() for option in options]
        status = nvrtc.nvrtcCompileProgram(
            program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
        )
        if status != 0:
            raise RuntimeError(
                f"nvrtc: source must compile, got\n{_text(nvrtc, program, 'ProgramLog')}"
            )
        return _text(nvrtc, program, "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, name: str) -> str:
    size = ctypes.c_size_t()
    _check(nvrtc[f"nvrtcGet{name}Size"](program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(nvrtc[f"nvrtcGet{name}"](program, text))
    return text.value.decode()


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"nvrtc: a call must succeed, got status {status}")
