"""Every instruction set that this processor runs keeps the bounds; each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPERATORS = Path(__file__).with_name("test_operators.py")
PROGRAM = """
import torch
from starlight.ops import native
native.load()
print(torch.ops.starlight.isa())
"""


def run(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the instruction set, which is chosen once per process."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {"STARLIGHT_ISA": isa, "PYTHONPATH": paths}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_results_stay_within_the_bounds(isa: str) -> None:
    chosen = run(isa, "-c", PROGRAM)
    if "must name what this processor runs" in chosen.stderr:
        pytest.skip(f"this processor does not run {isa}")
    assert (chosen.stdout, chosen.returncode) == (f"{isa}\n", 0), chosen.stderr
    tests = run(isa, "-m", "pytest", str(OPERATORS), "-k", "error or winograd or strides")
    assert tests.returncode == 0, tests.stdout


def test_unknown_instruction_sets_are_refused() -> None:
    result = run("sse9", "-c", PROGRAM)
    assert "STARLIGHT_ISA must be portable, avx2 or avx512, got sse9" in result.stderr
