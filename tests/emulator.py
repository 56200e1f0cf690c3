"""CUDA kernels on the CPU: build them against csrc/emulator, run them, read what they did.

    library = emulator.build([folder / "kernels.cpp"])
    with emulator.Device(library) as device:
        x, out = device.input("x", array), device.output("out", result)
        device.call("scale", x, out, array.size)
        assert device.launches()[-1].full_share >= 0.9

docs/EMULATOR.md tells what is checked and counted.
"""

from __future__ import annotations

import ctypes
import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import native_build
import numpy as np

EMULATOR: Final = native_build.ROOT / "csrc" / "emulator"
CUDA: Final = native_build.ROOT / "csrc" / "ops" / "cuda"

# Kernels are read by nvcc in the same words: its pragmas are unknown here. GCC 12 sees overlapping
# copies where strings are joined.
FLAGS: Final = (
    "-std=c++20",
    "-g1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-restrict",
)
ROLES: Final = {"input": 0, "output": 1, "memory": 2}


class EmulatorFault(RuntimeError):
    """What a kernel must not do; `kind` is one word of docs/EMULATOR.md's table."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Traffic:
    """Global memory, request by request; a transaction is a sector of 32 bytes."""

    bytes: int = 0
    transactions: int = 0
    full_transactions: int = 0

    @property
    def moved_bytes(self) -> int:
        return 32 * self.transactions

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.bytes + other.bytes,
            self.transactions + other.transactions,
            self.full_transactions + other.full_transactions,
        )


@dataclass(frozen=True)
class Site:
    """All requests of one call in a kernel, in one space: "global" or "shared".

    `operation`: load, store, atomic, copy_from, copy_to (cp_async), matrices (ldmatrix).
    `bank_conflicts`: cycles beyond those of conflict-free requests. `ambiguous`: how often lanes of
    a warp had called unequally often when they met, so that requests are partly guessed.
    """

    file: str
    line: int
    operation: str
    space: str
    lane_bytes: int
    requests: int
    asked_bytes: int
    traffic: Traffic
    bank_conflicts: int
    ambiguous: int


@dataclass(frozen=True)
class Launch:
    """One launch; `buffers` holds loads and stores of each buffer by its name.

    `kernel`: the instantiation, as C++ has it, "starlight::cuda::add<float, 4>"; empty where it is
    not exported. `arguments`: the bytes of each, as a device gets them.
    """

    name: str
    kernel: str
    arguments: tuple[bytes, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    static_shared_bytes: int
    dynamic_shared_bytes: int
    blocks: int
    block_barriers: int
    warp_barriers: int
    shuffles: int
    votes: int
    mma: dict[str, int]
    buffers: dict[str, tuple[Traffic, Traffic]]
    sites: tuple[Site, ...]

    @property
    def traffic(self) -> Traffic:
        return sum((site.traffic for site in self.sites), Traffic())

    @property
    def full_share(self) -> float:
        """Of global transactions, those that move 32 wanted bytes."""
        return self.traffic.full_transactions / max(self.traffic.transactions, 1)

    @property
    def bank_conflicts(self) -> int:
        return sum(site.bank_conflicts for site in self.sites)

    @property
    def ambiguous(self) -> int:
        return sum(site.ambiguous for site in self.sites)


@cache
def machine_flags() -> tuple[str, ...]:
    """AVX2 where this processor has it: tensor cores are emulated several times as fast."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return ("-march=x86-64-v3",) if {"avx2", "fma", "f16c", "bmi2"} <= set(flags) else ()


@cache
def missing() -> str | None:
    """What this machine lacks to build the emulator, in words for a skipped test; else None."""
    if platform.system() != "Linux":
        return f"the emulator needs Linux, got {platform.system()}"
    if shutil.which("g++") is None:
        return "the emulator needs g++, install it (Debian: apt install g++)"
    header = "#include <boost/context/detail/fcontext.hpp>"
    command = ["g++", "-E", "-x", "c++", "-"]
    if subprocess.run(command, input=header.encode(), capture_output=True, check=False).returncode:
        return "the emulator needs Boost.Context (Debian: apt install libboost-context-dev)"
    return None


@cache
def _emulator() -> Path:
    sources = sorted(EMULATOR.glob("*.cpp"))
    fast = ("-O3", "-fno-semantic-interposition", *machine_flags())
    flags = (*FLAGS, "-Wconversion", *fast, "-lboost_context", "-ldl")
    return native_build.build_shared(sources, [EMULATOR], flags, compiler="g++")


def build(sources: Sequence[Path], includes: Sequence[Path] = ()) -> ctypes.CDLL:
    """Kernels and the C functions that launch them, `session.h` tells their form.

    Raises RuntimeError where they do not compile, or with what `missing` says.
    """
    if reason := missing():
        raise RuntimeError(reason)
    path = native_build.build_shared(
        [*sources, _emulator()],
        [*includes, CUDA, EMULATOR, native_build.CONTRACT],
        (*FLAGS, *machine_flags()),
        compiler="g++",
    )
    library = ctypes.CDLL(str(path))
    library.emulator_new.restype = ctypes.c_void_p
    library.emulator_add.restype = ctypes.c_uint64
    library.emulator_unwritten_bytes.restype = ctypes.c_uint64
    for name in ("emulator_fault_kind", "emulator_fault_message", "emulator_report"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


class Device:
    """A GPU with its memory, kernels of `library` run on it.

    `seed` other than 0 draws the order of blocks, warps and lanes; without `count` only faults are
    looked for, in half the time. Without `run` nothing runs: `launches` tells what would, and
    addresses may be those of a GPU. `shared_bytes` is the most that a block may have; kernels that
    ask for `multiprocessors` are told so.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        *,
        seed: int = 0,
        count: bool = True,
        run: bool = True,
        multiprocessors: int = 4,
        shared_bytes: int = 163 << 10,
    ) -> None:
        self._library = library
        self._held: list[Any] = []
        self._session = ctypes.c_void_p(
            library.emulator_new(
                ctypes.c_uint32(seed),
                int(count),
                int(run),
                multiprocessors,
                ctypes.c_size_t(shared_bytes),
            )
        )

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.emulator_delete(self._session)

    def input(self, name: str, data: Any, *, misalignment: int = 0) -> int:
        """Address of `data`, numpy array or torch tensor on the CPU, that kernels only read."""
        return self._add("input", name, data, misalignment)

    def output(self, name: str, data: Any, *, misalignment: int = 0) -> int:
        """Address of `data`, which holds nothing until a kernel writes it."""
        return self._add("output", name, data, misalignment)

    def memory(self, name: str, data: Any, *, misalignment: int = 0) -> int:
        """Address of `data`, whose values kernels may read and write."""
        return self._add("memory", name, data, misalignment)

    def _add(self, role: str, name: str, data: Any, misalignment: int) -> int:
        pointer, size, element = span(data)
        self._held.append(data)
        address = self._library.emulator_add(
            self._session,
            name.encode(),
            ctypes.c_void_p(pointer),
            ctypes.c_uint64(size),
            element,
            ROLES[role],
            ctypes.c_uint64(misalignment),
        )
        if address == 0:
            raise self._fault()
        return int(address)

    def unwritten_bytes(self, address: int) -> int:
        """Of an output: what no kernel has written."""
        found = self._library.emulator_unwritten_bytes(self._session, ctypes.c_uint64(address))
        return int(found)

    def call(
        self, function: str, *arguments: int | bool | float | ctypes._SimpleCData[Any]
    ) -> None:
        """`function(session, *arguments)` of the library; Python's integers go as int64_t.

        Raises EmulatorFault with the first fault, which ends the launch.
        """
        converted = (
            ctypes.c_int64(argument)
            if isinstance(argument, int)
            else ctypes.c_float(argument)
            if isinstance(argument, float)
            else argument
            for argument in arguments
        )
        if getattr(self._library, function)(self._session, *converted) != 0:
            raise self._fault()

    def launches(self) -> list[Launch]:
        """What every launch since the last `forget` did, in order."""
        return [
            _launch(launch) for launch in json.loads(self._library.emulator_report(self._session))
        ]

    def forget(self) -> None:
        self._library.emulator_forget_report(self._session)

    def _fault(self) -> EmulatorFault:
        return EmulatorFault(
            self._library.emulator_fault_kind(self._session).decode(),
            self._library.emulator_fault_message(self._session).decode(),
        )


def span(data: Any) -> tuple[int, int, int]:
    """Address, bytes from the first element to the last, bytes of an element."""
    if isinstance(data, np.ndarray):
        element, strides, pointer = data.itemsize, data.strides, data.ctypes.data
    else:
        element, pointer = data.element_size(), data.data_ptr()
        strides = tuple(stride * element for stride in data.stride())
    if 0 in data.shape:
        return pointer, 0, element
    if min(strides, default=0) < 0:
        raise ValueError(f"buffer: strides must not be negative, got {strides}")
    last = sum((size - 1) * stride for size, stride in zip(data.shape, strides, strict=True))
    return pointer, last + element, element


def _launch(record: dict[str, Any]) -> Launch:
    buffers = {
        name: (Traffic(**traffic["loads"]), Traffic(**traffic["stores"]))
        for name, traffic in record.pop("buffers").items()
    }
    sites = tuple(
        Site(**{**site, "traffic": Traffic(**site["traffic"])}) for site in record.pop("sites")
    )
    kernel = record.pop("kernel").removeprefix("void ").rpartition("(")[0]
    arguments = tuple(map(bytes.fromhex, record.pop("arguments")))
    grid, block = tuple(record.pop("grid")), tuple(record.pop("block"))
    return Launch(
        **record,
        kernel=kernel,
        arguments=arguments,
        grid=grid,
        block=block,
        buffers=buffers,
        sites=sites,
    )
