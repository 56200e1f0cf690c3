"""The CUDA operators by NVIDIA's compilers, without a GPU: they compile, and nothing is spilled."""

import os
import shutil
import subprocess
from pathlib import Path

import native_build
import nvrtc
import ptxas
import pytest
import torch

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# pack_weights of five types and add_weight_gradients of four are in both sources.
KERNELS_OF_BOTH = 9


@pytest.mark.skipif(ptxas.missing() is not None, reason=str(ptxas.missing()))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills(architecture: str) -> None:
    kernels = ptxas.kernels(architecture)
    assert len(kernels) == len({kernel.name for kernel in kernels}) + KERNELS_OF_BOTH
    names = {kernel.name.partition("<")[0] for kernel in kernels}
    assert names == {
        *("pack_weights", "convolve", "dense_block"),
        *("sum_weight_gradients", "add_weight_gradients", "mask_gradient"),
    }
    for kernel in kernels:
        assert kernel.spill_bytes == kernel.stack_bytes == 0, kernel


@pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
def test_nvrtc_takes_the_kernels_as_they_are() -> None:
    source = """
        #include "conv.cuh"
        #include "dense_block.cuh"
        #include "pack.cuh"
        #include "strided_conv.cuh"
        #include "weight_gradient.cuh"
        namespace starlight::cuda
        {
        template __global__ void pack_weights<f16>(const PackPlan);
        template __global__ void dense_block<f16, 4, 1, 2>(const DensePlan);
        template __global__ void dense_block<int8_t, 4, 2, 4>(const DensePlan);
        template __global__ void convolve<bf16, Geometry::strided, 2>(const ConvPlan);
        template __global__ void sum_weight_gradients<f16, 1>(const GradientPlan);
        template __global__ void add_weight_gradients<float>(const GradientPlan);
        template __global__ void mask_gradient<float>(const MaskPlan);
        }
    """
    ptx = nvrtc.compile_kernels(source, "sm_80")
    for instruction in ("mma.sync", "ldmatrix.sync", "cp.async.cg"):
        assert instruction in ptx
    assert ptx.count(".entry") == 7


def _cuda_headers() -> Path | None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    text = subprocess.run(
        [nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False
    ).stderr
    tops = [line.partition("=")[2] for line in text.splitlines() if "#$ TOP=" in line]
    folders = [Path(top) / "include" for top in tops]
    return next((folder for folder in folders if (folder / "cuda_runtime.h").is_file()), None)


def test_the_library_of_torch_compiles_with_cuda() -> None:
    """Against a torch for the CPU, too, whose headers have CUDA's half."""
    headers = _cuda_headers()
    torch_headers = Path(torch.__file__).parent / "include"
    if headers is None or not (torch_headers / "c10/cuda/CUDAGuard.h").is_file():
        pytest.skip("CUDA's headers are not installed")
    ops = native_build.ROOT / "csrc" / "ops"
    includes = (ops, torch_headers, torch_headers / "torch/csrc/api/include", headers)
    result = subprocess.run(
        [
            *("g++", "-std=c++20", "-fsyntax-only", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE"),
            *(f"-I{folder}" for folder in includes),
            str(ops / "cuda" / "library.cpp"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    assert result.returncode == 0, result.stderr
