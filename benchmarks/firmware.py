"""What the runtime asks of a core: `python -m benchmarks.firmware`. Code, data and stack in bytes.

Nothing is timed: the library is compiled for each core, `size` adds up its objects, and the stack
is the deepest chain of calls by the compiler's own account (GCC's -fcallgraph-info=su). A call that
comes back to itself, a frame that grows with the data, or a call that leads nowhere known is
refused, so the figure is a bound. `--write` renews the table of docs/FIRMWARE.md.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from starlight.tables import markdown_table, write_block

RUNTIME = ROOT / "csrc" / "runtime"
SOURCES = tuple(
    sorted(path for path in RUNTIME.glob("*.c") if path.name not in ("driver.c", "main.c"))
)
INCLUDES = (ROOT / "csrc" / "contract", RUNTIME)
DOCUMENT = ROOT / "docs" / "FIRMWARE.md"
OPTIMISATIONS = ("-Os", "-O2")

# What a program calls, and what the runtime itself calls by pointer: the self-test's own trace.
ENTRIES = (
    *("sl_open", "sl_arena_bytes", "sl_run", "sl_plan_bytes", "sl_run_planned", "sl_self_test"),
    "sl_decompress",
)
BY_POINTER = "self_test.c:compare"
LIBRARY = ("memcpy", "memset", "memcmp", "memmove")  # beside the compiler's own, named __
ARM, RISCV = "arm-none-eabi-", "riscv64-unknown-elf-"


@dataclass(frozen=True)
class Core:
    """A core, the prefix of its compiler, and the flags that choose it."""

    name: str
    prefix: str
    flags: tuple[str, ...]


def _arm(name: str) -> Core:
    return Core(name, ARM, (f"-mcpu={name}", "-mthumb"))


def _riscv(arch: str, abi: str) -> Core:
    return Core(arch, RISCV, ("--specs=picolibc.specs", f"-march={arch}", f"-mabi={abi}"))


CORES = {
    core.name: core
    for core in (
        *map(_arm, ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")),
        _riscv("rv32imac", "ilp32"),
        _riscv("rv64imac", "lp64"),
    )
}


@dataclass(frozen=True)
class Footprint:
    """Bytes of the library on a core; `stack` is the deepest of its functions' call chains."""

    core: str
    optimisation: str
    text: int
    data: int
    bss: int
    stack: int


def compile_objects(
    prefix: str, flags: Sequence[str], folder: Path, sources: Sequence[Path] = SOURCES
) -> list[Path]:
    """Objects of `sources`, each with its call graph (`.ci`) beside it; no warning is let pass."""
    objects = [folder / f"{source.stem}.o" for source in sources]
    for source, target in zip(sources, objects, strict=True):
        subprocess.run(
            [f"{prefix}gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion"]
            + ["-Werror", "-Werror=vla", "-fcallgraph-info=su", *flags]
            + [f"-I{include}" for include in INCLUDES]
            + ["-c", str(source), "-o", str(target)],
            check=True,
        )
    return objects


def stack_bytes(objects: Sequence[Path]) -> dict[str, int]:
    """Each entry's deepest chain of calls, in bytes of stack; memcpy and its kin count as nothing.

    Raises ValueError for recursion, for a frame without a bound and for a call to the unknown.
    """
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for target in objects:
        text = target.with_suffix(".ci").read_text(encoding="utf-8")
        for title, size, kind in re.findall(
            r'node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes \(([a-z,]+)\)', text
        ):
            if kind not in ("static", "dynamic,bounded"):
                raise ValueError(f"stack: frame of {title} must have a bound, got {kind}")
            frames[_name(title)] = int(size)
        for caller, called in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            calls.setdefault(_name(caller), set()).add(_name(called))

    def deepest(function: str, chain: tuple[str, ...]) -> int:
        if function in chain:
            raise ValueError(f"stack: calls must not recur, got {' -> '.join((*chain, function))}")
        if function == "__indirect_call":
            function = BY_POINTER
        if function in LIBRARY or function.startswith("__"):
            return 0
        if function not in frames:
            raise ValueError(f"stack: {chain[-1]} must call what is known, got {function}")
        below = (deepest(called, (*chain, function)) for called in calls.get(function, ()))
        return frames[function] + max(below, default=0)

    return {entry: deepest(entry, ()) for entry in ENTRIES}


def _name(title: str) -> str:
    """A static function as file:function, without the folders of the file."""
    return title.rpartition("/")[2]


def measure(core: Core, optimisation: str) -> Footprint:
    """Compile the library for a core; raises FileNotFoundError when its compiler is not there."""
    if shutil.which(f"{core.prefix}gcc") is None:
        raise FileNotFoundError(
            f"firmware: {core.prefix}gcc must be installed, got none "
            f"(Debian: apt install gcc-{core.prefix.rstrip('-')})"
        )
    with tempfile.TemporaryDirectory() as folder:
        objects = compile_objects(core.prefix, (*core.flags, optimisation), Path(folder))
        listed = subprocess.run(
            [f"{core.prefix}size", *map(str, objects)], capture_output=True, text=True, check=True
        ).stdout
        rows = [list(map(int, line.split()[:3])) for line in listed.splitlines()[1:]]
        text, data, bss = (sum(column) for column in zip(*rows, strict=True))
        return Footprint(
            core.name, optimisation, text, data, bss, max(stack_bytes(objects).values())
        )


def _table(footprints: Sequence[Footprint]) -> str:
    titles = ("core", "optimisation", "text", "data", "bss", "stack")
    return markdown_table(
        titles, [[str(value) for value in asdict(footprint).values()] for footprint in footprints]
    )


def run(cases: list[str], machine: Machine, write: bool) -> dict[str, Any]:
    found = [measure(CORES[name], level) for name in cases for level in OPTIMISATIONS]
    table = _table(found)
    click.echo(table)
    if write:
        write_block(DOCUMENT, "footprint", table)
    return {"footprints": [asdict(footprint) for footprint in found]}


main = Benchmark(
    "firmware",
    callback=run,
    cases=list(CORES),
    quick={},
    params=[
        click.Option(["--write"], is_flag=True, help="Renew the table of docs/FIRMWARE.md."),
    ],
    help="Code, data and stack of the runtime on each core.",
)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks.firmware")
