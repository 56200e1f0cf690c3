"""The engine outside its Python module: Arm under qemu, sanitizers, the compiler's listing."""

import platform
import re
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import native_build
import pytest
from runtime_library import INCLUDES, SOURCES
from strategies import TINY, random_graph, random_image
from wide_bundles import WIDE

from hls_export.bundle import pack_bundle
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.topology import Topology

ENGINE = native_build.ROOT / "csrc" / "engine"
DRIVER = Path(__file__).with_name("engine_driver.cpp")
EVERYWHERE = ("engine", "frame", "isa", "plan", "portable", "run", "threads")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
ARM = {"neon_dot": ("-march=armv8.2-a+dotprod",)}
# Of its own headers GCC 12 warns that unused operands are undefined, which is on purpose.
WARNINGS = (*native_build.CXX17, "-Wno-uninitialized", "-Wno-maybe-uninitialized")
BLOCKS = Topology((16, 32), (8, 16))
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 processor")
GRAPHS = {
    "edges": random_graph(5, TINY, "edges"),
    "blocks": random_graph(6, BLOCKS),
    "wide": random_graph(7, BLOCKS, "natural", "wide"),
    "multiplier": random_graph(8, BLOCKS, "edges", "multiplier"),
}


def objects(
    folder: Path, prefix: str, sets: dict[str, tuple[str, ...]], flags: tuple[str, ...] = ()
) -> list[str]:
    """The engine, driver and runtime compiled by PREFIXg++ and PREFIXgcc, without a warning."""
    jobs = [(source, ("gcc", *native_build.C99, *flags)) for source in SOURCES]
    jobs += [(ENGINE / f"{name}.cpp", ("g++", *WARNINGS, *flags)) for name in EVERYWHERE]
    jobs += [(ENGINE / f"{name}.cpp", ("g++", *WARNINGS, *own)) for name, own in sets.items()]
    jobs.append((DRIVER, ("g++", *WARNINGS, *flags)))
    made = []
    for source, (compiler, *own) in jobs:
        made.append(str(folder / f"{source.parent.name}_{source.stem}.o"))
        includes = [f"-I{path}" for path in (*INCLUDES, ENGINE)]
        subprocess.run(
            [prefix + compiler, "-O2", *own, *includes, "-c", str(source), "-o", made[-1]],
            check=True,
        )
    return made


Run = Callable[[IntegerGraph, str, int], None]


def runner(program: Path, folder: Path, launcher: tuple[str, ...] = ()) -> Run:
    """A check that the program computes every layer of a graph as the golden model does."""

    def run(graph: IntegerGraph, instruction_set: str, threads: int) -> None:
        image = random_image(8, 43, 30)
        output, trace = interpret.run_traced(graph, image)
        bundle, given, out = (folder / name for name in ("model.slb", "in.rgb", "out.rgb"))
        bundle.write_bytes(pack_bundle(graph, WIDE))
        given.write_bytes(image.tobytes())
        result = subprocess.run(
            [
                *(*launcher, str(program), instruction_set, str(threads)),
                *(str(bundle), "30", "43", str(given), str(out)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        maps = [layer.astype(layer.dtype.newbyteorder("<")) for layer in trace.values()]
        crcs = [f"{zlib.crc32(layer.tobytes()):08x}" for layer in maps]
        assert result.stdout.split() == crcs
        assert out.read_bytes() == output.tobytes()

    return run


def link(compiler: str, made: list[str], folder: Path, *flags: str) -> Path:
    program = folder / "engine_driver"
    subprocess.run([compiler, *made, *flags, "-pthread", "-o", str(program)], check=True)
    return program


def test_arm_dot_product_under_qemu(tmp_path: Path) -> None:
    native_build.require("g++-aarch64-linux-gnu qemu-user", "aarch64-linux-gnu-g++", "qemu-aarch64")
    made = objects(tmp_path, "aarch64-linux-gnu-", ARM)
    program = link("aarch64-linux-gnu-g++", made, tmp_path, "-static")
    run = runner(program, tmp_path, ("qemu-aarch64",))
    for graph in GRAPHS.values():
        for instruction_set in (*ARM, "portable"):
            run(graph, instruction_set, 2)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizer: str, tmp_path: Path) -> None:
    flags = ("-g", "-DSL_ENGINE_PORTABLE", f"-fsanitize={sanitizer}")
    made = objects(tmp_path, "", {}, (*flags, "-fno-sanitize-recover=all"))
    run = runner(link("g++", made, tmp_path, *flags), tmp_path)
    # Views off the dwords read bytes, times zero, that others write: a race by the letter.
    for name in GRAPHS if sanitizer != "thread" else ("blocks", "wide", "multiplier"):
        run(GRAPHS[name], "portable", 3)


@x86
def test_accumulators_stay_in_registers(tmp_path: Path) -> None:
    """No vector register goes to the stack among the dot products."""
    native_build.require("binutils", "objdump")
    target = tmp_path / "avx512_vnni.o"
    includes = [f"-I{path}" for path in (*INCLUDES, ENGINE)]
    subprocess.run(
        [
            *("g++", "-std=c++17", "-O3", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
            *(*AVX512, *includes, "-c", str(ENGINE / "avx512_vnni.cpp"), "-o", str(target)),
        ],
        check=True,
    )
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(target)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listing.count("vpdpbusd") > 500
    lines = listing.splitlines()
    for index, line in enumerate(lines):
        if re.search(r"zmm.*\(%r[sb]p", line):
            assert "vpdpbusd" not in "".join(lines[max(0, index - 8) : index + 8]), line
