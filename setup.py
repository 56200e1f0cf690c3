"""The native modules and nothing else; metadata lies in pyproject.toml.

`pip install -e . --no-build-isolation` builds them in place; `python setup.py build_ext --inplace`
builds them again, each one only when a file that it depends on has changed. The operators need
torch to build; without it, as in pip's isolated build, they are left out, and a line says so. Their
CUDA kernels are built where torch is one for CUDA and nvcc is there; a line says which.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")

# A module may mix languages: each source gets the flags of its suffix.
FLAGS = {
    ".c": ["-std=c99", "-O3"],
    ".cpp": ["-std=c++17", "-O3", "-fvisibility=hidden"],
}
# -fopenmp: at::parallel_for is a template of torch's headers, and one thread without it.
OPS_FLAGS = ["-std=c++20", "-O3", "-g0", "-ffp-contract=fast", "-fvisibility=hidden", "-fopenmp"]

# Sources of csrc/ops/cpu for one instruction set each; which of them runs is chosen at run time.
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
# GCC 12 warns of its own intrinsics, whose unused operands are undefined on purpose.
QUIET = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
INSTRUCTION_SETS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512bf16", *QUIET],
}
# The same of csrc/engine; those of another processor than this one are left out.
ENGINE_SETS_X86 = {
    "avx2": ["-mavx2"],
    "avx_vnni": ["-mavx2", "-mavxvnni"],
    "avx512_vnni": [*AVX512, "-mavx512vnni", *QUIET],
}
ENGINE_SETS_ARM = {"neon_dot": ["-march=armv8.2-a+dotprod"]}
# Of *.cu: machine code of three architectures, and PTX for those after them.
CUDA_ARCHITECTURES = ("80", "90", "100")
NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "--threads=0",
    *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHITECTURES),
    f"-gencode=arch=compute_{CUDA_ARCHITECTURES[-1]},code=compute_{CUDA_ARCHITECTURES[-1]}",
    *("-Xcompiler=-fPIC,-fvisibility=hidden", "-Xcudafe=--diag_suppress=20012"),
]
X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
ENGINE_SETS = ENGINE_SETS_X86 if X86 else ENGINE_SETS_ARM if ARM else {}


def nvcc() -> str | None:
    """nvcc of CUDA_HOME, else of the path."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)


def toolkit(compiler: str) -> Path:
    """Where an nvcc finds headers and libraries; it tells itself, as it may be a wrapper."""
    dry_run = [compiler, "--dryrun", "-c", "none.cu"]
    told = subprocess.run(dry_run, capture_output=True, text=True, check=False).stderr
    for line in told.splitlines():
        if line.startswith("#$ TOP="):
            return Path(line.partition("=")[2]).resolve()
    raise SystemExit(f"native modules: {compiler} must tell its toolkit, got {told!r}")


def flags_of(source: Path) -> list[str]:
    if CSRC / "engine" in source.parents:
        return [*FLAGS[source.suffix], "-g0", *(ENGINE_SETS.get(source.stem, []))]
    if CSRC / "ops" not in source.parents:
        return FLAGS[source.suffix]
    return [*OPS_FLAGS, *(INSTRUCTION_SETS.get(source.stem, []) if X86 else [])]


def executor(name: str, sources: Iterable[Path], folders: Sequence[Path]) -> Extension:
    """hls_export.executors.NAME from these sources and the firmware runtime's."""
    folder = CSRC / "runtime"
    programs = {folder / "driver.c", folder / "main.c"}
    sources = [*sorted(set(folder.glob("*.c")) - programs), *sorted(sources)]
    folders = [CSRC / "contract", folder, *folders]
    headers = [path for include in folders for path in include.glob("*.h")]
    return Extension(
        f"hls_export.executors.{name}",
        sources=[str(path) for path in sources],
        depends=[str(path) for path in sorted(headers)],
        include_dirs=[*map(str, folders), pybind11.get_include()],
        language="c++",
    )


def runtime() -> Extension:
    """hls_export.executors._runtime: the C99 firmware runtime behind pybind11."""
    return executor("_runtime", [CSRC / "runtime" / "python_module.cpp"], [])


def engine() -> Extension:
    """hls_export.executors._engine: csrc/engine, which opens bundles by the firmware runtime."""
    folder = CSRC / "engine"
    foreign = ({*ENGINE_SETS_X86, *ENGINE_SETS_ARM}) - set(ENGINE_SETS)
    sources = [path for path in folder.glob("*.cpp") if path.stem not in foreign]
    return executor("_engine", sources, [folder])


def operators() -> list[Extension]:
    """starlight.ops._library: the float kernels, registered with torch when it is loaded."""
    if find_spec("torch") is None:
        print(
            "starlight.ops left out: torch is not in this build's environment; where it is, "
            "`python setup.py build_ext --inplace` builds the operators",
            file=sys.stderr,
        )
        return []
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths

    folder = CSRC / "ops"
    sources = [*folder.glob("*.cpp"), *folder.glob("cpu/*.cpp")]
    includes, macros = [str(folder), *include_paths()], []
    folders, libraries = library_paths(), ["c10", "torch", "torch_cpu"]
    compiler = nvcc()
    if torch.version.cuda is None:
        why_not = f"torch {torch.__version__} is not one for CUDA"
    elif compiler is None:
        why_not = "nvcc is neither in CUDA_HOME nor on the PATH"
    else:
        why_not = None
        sources += [*folder.glob("cuda/*.cpp"), *folder.glob("cuda/*.cu")]
        includes += [str(CSRC / "contract"), str(toolkit(compiler) / "include")]
        macros.append(("STARLIGHT_CUDA", None))
        folders.append(str(toolkit(compiler) / "lib64"))
        libraries += ["c10_cuda", "torch_cuda", "cudart"]
    told = f"CUDA kernels left out, {why_not}" if why_not else f"with CUDA kernels, by {compiler}"
    print(f"starlight.ops: {told}", file=sys.stderr)
    headers = [path for path in folder.rglob("*") if path.suffix in (".h", ".cuh")]
    return [
        Extension(
            "starlight.ops._library",
            sources=[str(path) for path in sorted(sources)],
            depends=[str(path) for path in sorted(headers)],
            include_dirs=includes,
            define_macros=macros,
            library_dirs=folders,
            libraries=libraries,
            extra_link_args=["-fopenmp"],
            language="c++",
        )
    ]


class BuildNative(build_ext):
    """Compile with `flags_of` and STARLIGHT_NATIVE_FLAGS, extensions and sources side by side."""

    parallel: int | None

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self) -> None:
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.is_file():
            raise SystemExit(
                f"native modules: {header} must exist, got none; install Python's headers "
                "(Debian: apt install python3-dev)"
            )
        compile_source = self.compiler._compile
        extra = shlex.split(os.environ.get("STARLIGHT_NATIVE_FLAGS", ""))

        def compile_with_flags(
            target: str,
            source: str,
            suffix: str,
            options: list[str],
            last: list[str],
            macros: list[str],
        ) -> None:
            if Path(source).suffix == ".cu":
                compiler = nvcc()
                assert compiler is not None  # `operators` would have left the source out
                self.compiler.spawn([compiler, *NVCC_FLAGS, *macros, "-c", source, "-o", target])
                return
            flags = [*last, *flags_of(Path(source)), *extra]
            compile_source(target, source, suffix, options, flags, macros)

        pool, compile_all = ThreadPoolExecutor(self.parallel), self.compiler.compile
        jobs: list[Future[None]] = []

        def compile_in_parallel(*arguments: Any, **options: Any) -> list[str]:
            objects = compile_all(*arguments, **options)
            for job in jobs:
                job.result()
            return objects

        self.compiler._compile = lambda *job: jobs.append(pool.submit(compile_with_flags, *job))
        self.compiler.compile = compile_in_parallel
        self.compiler.src_extensions.append(".cu")
        with pool:
            super().build_extensions()


setup(ext_modules=[runtime(), engine(), *operators()], cmdclass={"build_ext": BuildNative})
