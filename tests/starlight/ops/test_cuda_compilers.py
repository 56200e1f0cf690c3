"""The CUDA operators by NVIDIA's compilers, without a GPU: they compile, and nothing is spilled."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import emulator
import native_build
import nvrtc
import ptxas
import pytest
import raw_module
import torch
from cases import DenseBlockCase, StridedConvCase
from cuda_operators import Operators, library

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
@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
def test_what_cupy_is_to_launch_is_what_nvrtc_compiles() -> None:
    """Of a training step and an integer block: kernels by name, and as many bytes of arguments."""
    planned = Operators(lambda: emulator.Device(library(), run=False))
    launches = []
    for case, dtype in (
        (DenseBlockCase(16, 8, 20, 40), torch.float16),
        (StridedConvCase(16, 32, 20, 40, activation=True), torch.bfloat16),
    ):
        out = planned.run(case)([value.requires_grad_() for value in case.inputs(0, dtype)])
        launches += planned.launches
        out.backward(torch.ones_like(out))
        launches += planned.launches
    shapes = DenseBlockCase(16, 16, 20, 40).shapes
    integers = [torch.ones(shape, dtype=torch.int8) for shape in shapes[:4]]
    others = [torch.ones(shape, dtype=torch.int32) for shape in shapes[4:]]
    x = torch.ones(1, 16, 20, 40, dtype=torch.int8)
    planned.dense_block(x, integers, others, others, others[3])
    launches += planned.launches

    arguments = {launch.kernel: launch.arguments for launch in launches}
    compiled = nvrtc.compile_kernels(raw_module.source(), "sm_80", sorted(arguments))
    for instruction in ("mma.sync", "ldmatrix.sync", "cp.async.cg"):
        assert instruction in compiled.ptx
    for kernel, (argument,) in arguments.items():
        symbol = compiled.symbols[kernel]
        parameter = rf"\.entry {symbol}\(\s*\.param \.align 8 \.b8 {symbol}_param_0\[(\d+)\]\s*\)"
        (size,) = re.findall(parameter, compiled.ptx)
        assert int(size) == len(argument) == raw_module.by_value(argument).nbytes


SETUP = """
import runpy, sys, torch
torch.version.cuda = "13.0"
sys.argv = ["setup.py", "--dry-run", "build_ext", "--force", "--build-temp", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""


@pytest.mark.skipif(ptxas.missing() is not None, reason=str(ptxas.missing()))
def test_the_build_for_a_cuda_torch_finds_what_it_needs(tmp_path: Path) -> None:
    """Its commands as setup.py would give them; the one that a torch for the CPU can follow is run.

    That of cuda/library.cpp: also torch for the CPU has CUDA's half of the headers, but for one
    that is made when it is built.
    """
    told = subprocess.run(
        [sys.executable, "-c", SETUP, str(tmp_path)],
        cwd=native_build.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"starlight.ops: with CUDA kernels, by {shutil.which('nvcc')}" in told.stderr
    commands = [shlex.split(line) for line in (told.stdout + told.stderr).splitlines()]
    of_source = {
        command[command.index("-c") + 1]: command for command in commands if "-c" in command
    }
    for source in ptxas.SOURCES:
        command = of_source[str(source.relative_to(native_build.ROOT))]
        assert command[0] == shutil.which("nvcc")
        for number in (80, 90, 100):
            assert f"-gencode=arch=compute_{number},code=sm_{number}" in command
    (link,) = (command for command in commands if "-ltorch_cuda" in command)
    assert {"-lc10_cuda", "-lcudart"} <= {*link}
    folders = [Path(flag[2:]) for flag in link if flag.startswith("-L")]
    assert any((folder / "libcudart.so").is_file() for folder in folders)

    if not (Path(torch.__file__).parent / "include/c10/cuda/CUDAGuard.h").is_file():
        pytest.skip("torch came without CUDA's half of its headers")
    result = subprocess.run(
        [
            *of_source["csrc/ops/cuda/library.cpp"],
            *("-fsyntax-only", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE"),
        ],
        cwd=native_build.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
