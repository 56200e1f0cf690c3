"""The example of docs/EMULATOR.md runs."""

import ctypes
import re
from pathlib import Path

import native_build

TEXT = (native_build.ROOT / "docs" / "EMULATOR.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(code)


def test_the_example_runs(tmp_path: Path, kernels: ctypes.CDLL) -> None:
    del kernels  # skips where there is no emulator
    (tmp_path / "scale.cpp").write_text(block("cpp"), encoding="utf-8")
    exec(compile(block("python"), "EMULATOR.md", "exec"), {"folder": tmp_path})
