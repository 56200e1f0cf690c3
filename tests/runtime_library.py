"""The firmware runtime behind ctypes, every argument of its C functions in reach of a test."""

import ctypes
import re
from functools import cache
from pathlib import Path

import native_build
import numpy as np

from quant.intmath import UInt8Array

RUNTIME = native_build.ROOT / "csrc" / "runtime"
PROBE = Path(__file__).parent / "csrc" / "runtime_probe.c"
PROGRAMS = ("driver.c", "main.c")
SOURCES = [path for path in sorted(RUNTIME.glob("*.c")) if path.name not in PROGRAMS]
INCLUDES = [native_build.CONTRACT, RUNTIME]
ALIGNMENT = 64  # the strictest that a chip may ask


@cache
def statuses() -> tuple[str, ...]:
    """Names of sl_status, by value."""
    header = (RUNTIME / "starlight_runtime.h").read_text(encoding="utf-8")
    body = re.search(r"typedef enum sl_status \{(.*?)\} sl_status;", header, re.DOTALL)
    assert body is not None
    code = re.sub(r"/\*.*?\*/", "", body.group(1), flags=re.DOTALL)
    return tuple(name.strip().removesuffix(" = 0") for name in code.split(","))


@cache
def library() -> ctypes.CDLL:
    path = native_build.build_shared([*SOURCES, PROBE], INCLUDES, native_build.C99)
    loaded = ctypes.CDLL(str(path))
    loaded.sl_status_text.restype = ctypes.c_char_p
    loaded.probe_model_bytes.restype = ctypes.c_size_t
    return loaded


def aligned(size: int, misalignment: int = 0) -> UInt8Array:
    """uint8 [size] at an address of `misalignment` modulo ALIGNMENT."""
    block = np.zeros(size + 2 * ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT + misalignment
    return block[start : start + size]


class Model:
    """sl_model and the bytes that it points into; `status` is what sl_open said."""

    def __init__(self, bundle: bytes, built: ctypes.CDLL | None = None) -> None:
        self.library = built or library()
        self.bundle = np.frombuffer(bundle, np.uint8).copy()
        self.memory = aligned(self.library.probe_model_bytes())
        self.status = self.call("sl_open", self.bundle, ctypes.c_size_t(self.bundle.size))

    def call(self, function: str, *arguments: object) -> str:
        """Call a function of the runtime on this model; arrays go as pointers."""
        converted = (
            ctypes.c_void_p(argument.ctypes.data) if isinstance(argument, np.ndarray) else argument
            for argument in arguments
        )
        status = getattr(self.library, function)(
            ctypes.c_void_p(self.memory.ctypes.data), *converted
        )
        return statuses()[status]

    def arena_bytes(self, width: int, height: int) -> tuple[str, int]:
        size = ctypes.c_size_t(0)
        status = self.call(
            "sl_arena_bytes", ctypes.c_uint32(width), ctypes.c_uint32(height), ctypes.byref(size)
        )
        return status, size.value

    def run(
        self,
        image: UInt8Array,
        output: UInt8Array,
        arena: UInt8Array,
        *,
        size: tuple[int, int] | None = None,
        strides: tuple[int, int] | None = None,
    ) -> str:
        """sl_run without a trace; `size` is (height, width), `strides` of rows in bytes."""
        height, width = size or image.shape[:2]
        in_stride, out_stride = strides or (image.strides[0], output.strides[0])
        return self.call(
            "sl_run",
            image,
            ctypes.c_size_t(in_stride),
            output,
            ctypes.c_size_t(out_stride),
            ctypes.c_uint32(width),
            ctypes.c_uint32(height),
            arena,
            ctypes.c_size_t(arena.size),
            None,
            None,
        )

    def run_planned(self, image: UInt8Array, output: UInt8Array) -> str:
        """sl_run_planned without a trace."""
        height, width = (ctypes.c_uint32(side) for side in image.shape[:2])
        sizes = ctypes.c_size_t(0), ctypes.c_size_t(0)
        status = self.call("sl_plan_bytes", width, height, *map(ctypes.byref, sizes))
        if status != "SL_OK":
            return status
        sram, dram = (aligned(size.value + 1) for size in sizes)
        return self.call(
            "sl_run_planned",
            image,
            ctypes.c_size_t(image.strides[0]),
            output,
            ctypes.c_size_t(output.strides[0]),
            width,
            height,
            sram,
            sizes[0],
            dram,
            sizes[1],
            None,
            None,
        )

    def self_test(self, arena: UInt8Array) -> tuple[str, int]:
        layer = ctypes.c_uint32(0)
        status = self.call("sl_self_test", arena, ctypes.c_size_t(arena.size), ctypes.byref(layer))
        return status, layer.value
