"""The small kernels of this folder, on the emulator and, where there is one, on a GPU."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import emulator
import gpu
import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def kernels() -> ctypes.CDLL:
    """kernels.cpp against the emulator."""
    if reason := emulator.missing():
        pytest.skip(reason)
    return emulator.build([FOLDER / "kernels.cpp"])


@pytest.fixture(scope="session")
def faults() -> ctypes.CDLL:
    """faults.cpp against the emulator."""
    if reason := emulator.missing():
        pytest.skip(reason)
    return emulator.build([FOLDER / "faults.cpp"])


@pytest.fixture(params=["in order", "drawn order 1", "drawn order 2", "gpu"])
def device(request: pytest.FixtureRequest) -> Iterator[emulator.Device | gpu.Gpu]:
    """What runs kernels.cpp: results must not depend on it."""
    if request.param == "gpu":
        if reason := gpu.missing():
            pytest.skip(reason)
        yield gpu.Gpu(gpu.build([FOLDER / "kernels.cpp"]))
        return
    seed = 0 if request.param == "in order" else int(request.param.split()[-1])
    with emulator.Device(request.getfixturevalue("kernels"), seed=seed) as emulated:
        yield emulated
