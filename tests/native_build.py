"""Compile native code for tests: one cache, keyed by everything that shapes the result.

A build lies under .cache/native/<key>/ in the repository, where the key covers the sources, every
header beside them or in an include folder, the flags, and the compiler's version: a changed byte is
a new build.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "native"
CONTRACT = ROOT / "csrc" / "contract"

C99 = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
CXX17 = ("-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
HEADER_SUFFIXES = (".h", ".hpp", ".cu", ".cuh", ".inc")


def require(packages: str, *programs: str) -> None:
    """Skip a test that needs a program which is not installed; packages: Debian's, to install."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt install {packages}")


def build_shared(
    sources: Sequence[Path],
    includes: Sequence[Path] = (),
    flags: Sequence[str] = (),
    *,
    compiler: str = "gcc",
) -> Path:
    """A shared object of `sources`, for ctypes. See `build_program`."""
    return _build(sources, includes, ("-O2", "-shared", "-fPIC", *flags), compiler, "library.so")


def build_program(
    sources: Sequence[Path],
    includes: Sequence[Path] = (),
    flags: Sequence[str] = (),
    *,
    compiler: str = "gcc",
) -> Path:
    """An executable of `sources` with `includes` on the header path; `flags` follow -O2.

    Returns its path. Raises RuntimeError with the compiler's own words when it does not compile.
    """
    return _build(sources, includes, ("-O2", *flags), compiler, "program")


def _build(
    sources: Sequence[Path],
    includes: Sequence[Path],
    flags: Sequence[str],
    compiler: str,
    name: str,
) -> Path:
    libraries = [flag for flag in flags if flag.startswith("-l")]
    options = [flag for flag in flags if not flag.startswith("-l")]
    target = CACHE / _key([*sources, *_headers(sources, includes)], flags, compiler) / name
    if target.is_file():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=CACHE, prefix="building."))
    try:
        result = subprocess.run(
            [
                compiler,
                *options,
                *(f"-I{folder}" for folder in includes),
                *map(str, sources),
                "-o",
                str(folder / name),
                *libraries,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(f"{compiler}: sources must compile, got\n{result.stderr}")
        target.parent.mkdir(exist_ok=True)
        os.replace(folder / name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def _headers(sources: Iterable[Path], includes: Iterable[Path]) -> list[Path]:
    beside = (path for source in sources for path in source.parent.iterdir())
    included = (path for folder in includes for path in folder.rglob("*"))
    return sorted(
        {path for path in (*beside, *included) if path.suffix in HEADER_SUFFIXES and path.is_file()}
    )


def _key(files: Iterable[Path], flags: Sequence[str], compiler: str) -> str:
    digest = hashlib.sha256(f"{_version(compiler)}\0{list(flags)}".encode())
    for path in files:
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


@cache
def _version(compiler: str) -> str:
    if shutil.which(compiler) is None:
        raise RuntimeError(f"native build: {compiler} must be on the PATH, install gcc and g++")
    return subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
