"""NVIDIA's run-time compiler, which CuPy uses, as a library: it needs no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import emulator
import native_build

INCLUDES: Final = (emulator.CUDA, emulator.CUDA / "nvrtc", native_build.CONTRACT)
OPTIONS: Final = ("-std=c++20", *(f"-I{folder}" for folder in INCLUDES))
# All kernels of the operators, as templates.
OPERATORS: Final = "".join(
    f'#include "{name}.cuh"\n'
    for name in ("conv", "dense_block", "pack", "strided_conv", "weight_gradient")
)


class Compiled(NamedTuple):
    """PTX, and how kernels are called in it that were asked for by name."""

    ptx: str
    symbols: dict[str, str]


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


def compile_kernels(source: str, architecture: str, names: Sequence[str] = ()) -> Compiled:
    """Compile `source`, which sees the folders of CUDA kernels; `architecture` like "sm_80".

    names: kernels that are wanted, as C++ has them: "starlight::cuda::pack_weights<float>".

    Raises RuntimeError with the compiler's own words.
    """
    path = _library()
    if path is None:
        raise RuntimeError(missing())
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(path))
    options = (f"--gpu-architecture={architecture}", *OPTIONS)
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
    )
    try:
        for name in names:
            _check(nvrtc.nvrtcAddNameExpression(program, name.encode()))
        encoded = [option.encode() for option in options]
        status = nvrtc.nvrtcCompileProgram(
            program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
        )
        if status != 0:
            raise RuntimeError(
                f"nvrtc: source must compile, got\n{_text(nvrtc, program, 'ProgramLog')}"
            )
        symbols = {name: _symbol(nvrtc, program, name) for name in names}
        return Compiled(_text(nvrtc, program, "PTX"), symbols)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _symbol(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, name: str) -> str:
    symbol = ctypes.c_char_p()
    _check(nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(symbol)))
    return (symbol.value or b"").decode()


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, name: str) -> str:
    size = ctypes.c_size_t()
    _check(nvrtc[f"nvrtcGet{name}Size"](program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(nvrtc[f"nvrtcGet{name}"](program, text))
    return text.value.decode()


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"nvrtc: a call must succeed, got status {status}")
