"""The native modules and nothing else; metadata lies in pyproject.toml.

`pip install -e . --no-build-isolation` builds them in place; `python setup.py build_ext --inplace`
builds them again, each one only when a file that it depends on has changed.
"""

import os
import shlex
import sysconfig
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")

# A module may mix languages: each source gets the flags of its suffix.
FLAGS = {
    ".c": ["-std=c99", "-O3"],
    ".cpp": ["-std=c++17", "-O3", "-fvisibility=hidden"],
}


def runtime() -> Extension:
    """hls_export.executors._runtime: the C99 firmware runtime behind pybind11."""
    folder = CSRC / "runtime"
    programs = {folder / "driver.c", folder / "main.c"}
    sources = [*sorted(set(folder.glob("*.c")) - programs), folder / "python_module.cpp"]
    headers = [*folder.glob("*.h"), *(CSRC / "contract").glob("*.h")]
    return Extension(
        "hls_export.executors._runtime",
        sources=[str(path) for path in sources],
        depends=[str(path) for path in sorted(headers)],
        include_dirs=[str(CSRC / "contract"), str(folder), pybind11.get_include()],
        language="c++",
    )


class BuildNative(build_ext):
    """Compile each source with `FLAGS` and STARLIGHT_NATIVE_FLAGS; extensions side by side."""

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
            flags = [*last, *FLAGS[suffix], *extra]
            compile_source(target, source, suffix, options, flags, macros)

        self.compiler._compile = compile_with_flags
        super().build_extensions()


setup(ext_modules=[runtime()], cmdclass={"build_ext": BuildNative})
