"""The CUDA operators through CuPy: RawModule compiles the kernels, a torch for the CPU will do.

What to launch, and with which arguments, comes from the operators' own host code, as g++ compiles
it against the emulator, which then tells launches in place of running them.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import emulator
import numpy as np
import nvrtc
from cuda_operators import Operators, library

WITHOUT_ASKING = 48 << 10  # bytes of dynamic shared memory


@cache
def missing() -> str | None:
    """What this machine lacks, in words; else None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install cupy-cuda13x)"
    import cupy

    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy sees no GPU: {error}"
    return emulator.missing()


@cache
def source() -> str:
    """All kernels. CuPy keeps what it compiled by this text alone: it names what it includes."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in nvrtc.INCLUDES for path in folder.glob("*.*h")):
        digest.update(path.read_bytes())
    return f"// {digest.hexdigest()}\n{nvrtc.OPERATORS}"


@cache
def _kernel(name: str) -> Any:
    import cupy

    module = cupy.RawModule(code=source(), options=nvrtc.OPTIONS, name_expressions=(name,))
    return module.get_function(name)


def by_value(argument: bytes) -> np.ndarray:
    """What CuPy passes as a struct of these bytes."""
    return np.frombuffer(argument, np.dtype([("bytes", np.uint8, (len(argument),))]))


class Device:
    """CuPy's current device, behind the face that `emulator.Device` has."""

    def __init__(self) -> None:
        import cupy

        runtime = cupy.cuda.runtime
        limit = partial(runtime.deviceGetAttribute, device=runtime.getDevice())
        self._plan = emulator.Device(
            library(),
            run=False,
            multiprocessors=limit(runtime.cudaDevAttrMultiProcessorCount),
            shared_bytes=limit(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin),
        )
        self._launches: list[Callable[[], None]] = []
        self._held: list[Any] = []
        self._results: list[tuple[np.ndarray, Any]] = []  # host, device

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        """Memory stays, for `replay`."""

    def input(self, name: str, data: Any, *, misalignment: int = 0) -> int:
        del name
        import cupy

        self._held.append(data)  # the host's memory, too
        host = _bytes(data)
        memory = cupy.zeros(host.size + misalignment, np.uint8)[misalignment:]
        memory.set(host)
        self._held.append(memory)
        return int(memory.data.ptr)

    def output(self, name: str, data: Any) -> int:
        address = self.input(name, data)
        self._results.append((_bytes(data), self._held[-1]))
        return address

    def call(self, function: str, *arguments: Any) -> None:
        """Plan what the library's `function` launches, launch it, and bring results back."""
        self._plan.forget()
        self._plan.call(function, *arguments)
        self._launches = [_prepared(launch) for launch in self._plan.launches()]
        self.replay()
        for host, memory in self._results:
            memory.get(out=host)

    def launches(self) -> list[emulator.Launch]:
        return self._plan.launches()

    def replay(self) -> None:
        """Launch once more what the latest call did; returns before it is done."""
        for run in self._launches:
            run()


def _prepared(launch: emulator.Launch) -> Callable[[], None]:
    kernel, shared_bytes = _kernel(launch.kernel), launch.dynamic_shared_bytes
    if shared_bytes > WITHOUT_ASKING:
        kernel.max_dynamic_shared_size_bytes = shared_bytes
    arguments = tuple(by_value(argument) for argument in launch.arguments)
    return partial(kernel, launch.grid, launch.block, arguments, shared_mem=shared_bytes)


def gpu_name() -> str:
    import cupy

    name: bytes = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"]
    return name.decode()


def operators() -> Operators:
    return Operators(Device)


def milliseconds(device: Device, seconds: float) -> float:
    """Median of `device.replay` as one graph, ten times at least and for about `seconds`."""
    import cupy
    from cupyx.profiler import benchmark

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        device.replay()
        graph = stream.end_capture()
        first = benchmark(graph.launch, (stream,), n_warmup=3, n_repeat=10).gpu_times[0]
        repeats = int(seconds / max(first.mean(), 1e-6))
        if repeats <= first.size:
            return float(np.median(first)) * 1e3
        return 1e3 * float(
            np.median(benchmark(graph.launch, (stream,), n_repeat=repeats).gpu_times[0])
        )


def _bytes(data: Any) -> np.ndarray:
    """The memory from the first value of an array or tensor to its last."""
    pointer, size, _ = emulator.span(data)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
