"""What nvcc's assembler tells of the CUDA operators' kernels: registers, stack, spills.

Kept under .cache/native until a byte of the kernels, the flags or the compiler changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import native_build

CUDA: Final = native_build.ROOT / "csrc" / "ops" / "cuda"
SOURCES: Final = (CUDA / "dense_block.cu", CUDA / "strided_conv.cu")
FLAGS: Final = ("-std=c++20", "-O3", "-cubin", "-Xptxas", "-v", "-Xcudafe", "--diag_suppress=20012")
GEOMETRIES: Final = ("unit_stride", "strided", "transposed")

_ENTRY: Final = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?\n(?:.*\n)*?"
    r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\n.*?Used (?P<registers>\d+) registers"
    r"(?:.*?, (?P<shared>\d+) bytes smem)?"
)


@dataclass(frozen=True)
class Kernel:
    """One instantiation; bytes of stack and spills are a thread's, of shared memory a block's.

    `name` as in the source, without namespaces: "dense_block<f16, 4, 1, 2>".
    """

    name: str
    registers: int
    stack_bytes: int
    spill_bytes: int
    static_shared_bytes: int


def missing() -> str | None:
    """Why nothing can be compiled here, in words for a skipped test; else None."""
    return None if shutil.which("nvcc") else "nvcc is not on the PATH"


@cache
def kernels(architecture: str) -> tuple[Kernel, ...]:
    """Every kernel of the operators for `architecture`, like "sm_80".

    Raises RuntimeError with the compiler's own words.
    """
    with ThreadPoolExecutor() as pool:
        logs = pool.map(_log, SOURCES, [architecture] * len(SOURCES))
        return tuple(kernel for log in logs for kernel in _parse(log))


def _log(source: Path, architecture: str) -> str:
    command = ["nvcc", *FLAGS, f"-arch={architecture}", f"-I{native_build.CONTRACT}", str(source)]
    digest = hashlib.sha256(repr(command[1:-2]).encode() + _version())
    folders = (CUDA, CUDA.parent, native_build.CONTRACT)
    for path in sorted(path for folder in folders for path in folder.iterdir() if path.is_file()):
        if path.suffix in (".h", ".cuh") or path == source:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    target = native_build.CACHE / digest.hexdigest()[:24] / "ptxas.txt"
    if not target.is_file():
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(
                [*command, "-o", str(Path(folder) / "kernels.cubin")],
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode != 0:
                raise RuntimeError(f"nvcc: {source.name} must compile, got\n{result.stderr}")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        unfinished.write_text(result.stderr, encoding="utf-8")
        os.replace(unfinished, target)
    return target.read_text(encoding="utf-8")


def _parse(log: str) -> list[Kernel]:
    entries = list(_ENTRY.finditer(log))
    mangled = "\n".join(entry["name"] for entry in entries)
    names = subprocess.run(
        ["c++filt"], input=mangled, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [
        Kernel(
            plain(name.removeprefix("void ").rpartition("(")[0]),
            int(entry["registers"]),
            int(entry["stack"]),
            int(entry["stores"]) + int(entry["loads"]),
            int(entry["shared"] or 0),
        )
        for name, entry in zip(names, entries, strict=True)
    ]


def plain(name: str) -> str:
    """Kernels as tables name them: without namespaces, geometries and types in words."""
    name = name.replace("starlight::cuda::", "").replace("signed char", "int8")
    return re.sub(r"\(Geometry\)(\d)", lambda found: GEOMETRIES[int(found[1])], name)


@cache
def _version() -> bytes:
    return subprocess.run(["nvcc", "--version"], capture_output=True, check=True).stdout
