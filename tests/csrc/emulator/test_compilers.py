"""The kernels that the emulator runs are CUDA: nvcc compiles the same text."""

import shutil
from pathlib import Path

import gpu
import pytest

FOLDER = Path(__file__).parent


TARGETS = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in (80, 90, 100)]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
@pytest.mark.parametrize("source", ["kernels.cpp", "faults.cpp"])
def test_nvcc_compiles_what_is_emulated(source: str) -> None:
    assert gpu.compile_kernels([FOLDER / source], TARGETS).is_file()
