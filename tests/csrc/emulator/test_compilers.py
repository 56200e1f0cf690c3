"""The kernels that the emulator runs are CUDA: nvcc and NVRTC compile the same text."""

import shutil
from pathlib import Path

import gpu
import nvrtc
import pytest

FOLDER = Path(__file__).parent


TARGETS = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in (80, 90, 100)]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
@pytest.mark.parametrize("source", ["kernels.cpp", "faults.cpp"])
def test_nvcc_compiles_what_is_emulated(source: str) -> None:
    assert gpu.compile_kernels([FOLDER / source], TARGETS).is_file()


@pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_nvrtc_compiles_what_is_emulated(architecture: str) -> None:
    """With csrc/contract beside it, and no header of NVIDIA's or the system's."""
    source = f"""
        #include "{FOLDER / "kernels.cuh"}"
        #include "intmath.h"
        using namespace kernels;
        template __global__ void kernels::block_sum<128>(const float *, float *);
        template __global__ void kernels::convert<f16>(const float *, f16 *, float *, int64_t);
        template __global__ void kernels::convert<bf16>(const float *, bf16 *, float *, int64_t);
        template __global__ void kernels::mma_k16<f16>(const uint32_t *, const uint32_t *, float *);
        template __global__ void kernels::mma_k8<bf16>(const uint32_t *, const uint32_t *, float *);
        __global__ void requantise(const int *sums, signed char *out)
        {{
            st(out + threadIdx.x, sl_requantise(ld_const<int>(sums + threadIdx.x), 7));
        }}
    """
    ptx = nvrtc.compile_kernels(source, architecture).ptx
    for instruction in ("mma.sync", "ldmatrix.sync", "cp.async.cg", "shfl.sync.bfly", "red."):
        assert instruction in ptx


@pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
def test_nvrtc_tells_what_is_wrong() -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        nvrtc.compile_kernels("nonsense;", "sm_80")
