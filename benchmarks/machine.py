"""What a figure was measured on: processor, limit, load, versions, commit."""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks import ROOT

# Those that decide which kernel runs, in the words of /proc/cpuinfo on x86 and Arm.
INSTRUCTION_SETS: Final = (
    *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
PACKAGES: Final = ("starlight", "numpy", "torch", "brevitas", "onnxruntime", "openvino", "ncnn")

FMA_SOURCE: Final = Path(__file__).with_name("fma_limit.c")
DOT_SOURCE: Final = Path(__file__).with_name("dot_limit.c")
LIMIT_ROUNDS: Final = 1_000_000
LIMIT_REPEATS: Final = 7


@dataclass(frozen=True)
class Machine:
    """The machine, in JSON types.

    cores            this process may run on
    load             processes that ran or waited in the last minute, where the system tells
    commit           of the repository, with -dirty when tracked files differ; None outside git
    fma_gflop_per_s  float32 limit of one core, measured; None without a C compiler
    """

    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    system: str
    load: float | None
    python: str
    packages: dict[str, str]
    commit: str | None
    fma_gflop_per_s: float | None

    def __str__(self) -> str:
        limit = self.fma_gflop_per_s
        return (
            f"{self.cpu}, {self.cores} cores"
            + (f", one of them {limit:.0f} GFLOP/s float32" if limit is not None else "")
            + (f", load {self.load:.1f}" if self.load is not None else "")
            + (f", commit {self.commit}" if self.commit is not None else "")
        )


def describe() -> Machine:
    """This machine, now; takes a tenth of a second, most of it for the limit."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cpu, instruction_sets = _processor()
    return Machine(
        cpu=cpu,
        cores=core_count(),
        instruction_sets=instruction_sets,
        system=platform.platform(),
        load=load,
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _installed(name))},
        commit=_commit(),
        fma_gflop_per_s=fma_limit(),
    )


def core_count() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fma_limit() -> float | None:
    """GFLOP/s of one core in float32 multiply-adds, the best of a few runs; None without `cc`."""
    return _limit(FMA_SOURCE, "fma_chains")


def dot_limit() -> float | None:
    """GOP/s of one core in int8 dot products, as `fma_limit`; None where it has none, too."""
    return _limit(DOT_SOURCE, "dot_chains")


def _limit(source: Path, function: str) -> float | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / f"{source.stem}.so"
        flags = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
        command = [compiler, *flags, "-o", str(library), str(source)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        chains = ctypes.CDLL(str(library))[function]
    chains.argtypes = (ctypes.c_int64, ctypes.POINTER(ctypes.c_float))
    chains.restype = ctypes.c_int64
    sink = ctypes.c_float()
    best = 0.0
    for _ in range(LIMIT_REPEATS):
        started = time.perf_counter()
        operations = chains(LIMIT_ROUNDS, ctypes.byref(sink))
        best = max(best, operations / (time.perf_counter() - started))
    return best / 1e9 or None


def _processor() -> tuple[str, tuple[str, ...]]:
    """Name and instruction sets; the name alone where there is no /proc/cpuinfo."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return name, ()
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip().lower(), value.strip())
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    sets = tuple(name for name in INSTRUCTION_SETS if name in flags)
    return facts.get("model name", name), sets


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None
