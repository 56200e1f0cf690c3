"""The runtime beyond this machine: other compilers, Arm in 32 and 64 bits, a big-endian machine, a
static analyser.

Programs are built by cross compilers and run under qemu's user mode. A missing tool skips its test
and names the Debian package.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import native_build
import numpy as np
import pytest
from runtime_library import INCLUDES, RUNTIME, SOURCES
from strategies import EDGE, TINY, random_graph, random_image
from wide_bundles import WIDE

from hls_export.bundle import pack_bundle
from hls_export.npu import load_chip
from hls_export.vector_set import fitting_cases, pack_case
from quant import interpret
from quant.integer_graph import IntegerGraph

NPU = RUNTIME.parent / "npu"
PROGRAMS = (RUNTIME / "driver.c", RUNTIME / "main.c")

# name: (compiler, flags, how to run it, Debian packages)
TARGETS = {
    "clang": ("clang", (), (), "clang"),
    "aarch64": (
        "aarch64-linux-gnu-gcc",
        ("-static",),
        ("qemu-aarch64",),
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
    ),
    "arm-32": (
        "arm-linux-gnueabihf-gcc",
        ("-static",),
        ("qemu-arm",),
        "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user",
    ),
    "s390x": (  # big-endian
        "s390x-linux-gnu-gcc",
        ("-static",),
        ("qemu-s390x",),
        "gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user",
    ),
}


def slrun_on(target: str) -> list[str]:
    """How the driver is started on a target."""
    compiler, flags, launcher, packages = TARGETS[target]
    native_build.require(packages, compiler, *launcher)
    program = native_build.build_program(
        [*SOURCES, RUNTIME / "driver.c"],
        INCLUDES,
        [*native_build.C99, "-O2", *flags],
        compiler=compiler,
    )
    return [*launcher, str(program)]


@pytest.fixture(params=TARGETS)
def slrun(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Runs the driver on a target; returns what it printed."""
    start = slrun_on(request.param)

    def run(*arguments: object) -> str:
        command = [*start, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def write_ppm(path: Path, pixels: np.ndarray) -> None:
    height, width, _ = pixels.shape
    path.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes())


@pytest.mark.parametrize(
    "graph",
    [
        random_graph(5, TINY, "edges"),
        random_graph(6, EDGE),
        random_graph(5, TINY, "edges", "wide"),
        random_graph(6, TINY, "natural", "multiplier"),
    ],
    ids=["edges", "natural", "wide", "multiplier"],
)
def test_bits_are_the_golden_models(
    slrun: Callable[..., str], graph: IntegerGraph, tmp_path: Path
) -> None:
    bundle = tmp_path / "model.slb"
    bundle.write_bytes(pack_bundle(graph, WIDE))
    slrun("--self-test", bundle)
    image = random_image(8, 43, 30)
    write_ppm(tmp_path / "in.ppm", image)
    slrun(bundle, tmp_path / "in.ppm", tmp_path / "out.ppm")
    pixels = (tmp_path / "out.ppm").read_bytes()[-image.size :]
    assert pixels == interpret.run(graph, image).tobytes()


def test_every_corner_case_on_a_big_endian_machine(tmp_path: Path) -> None:
    """Ties, saturations, ends of the accumulator, taps, odd sizes."""
    start = slrun_on("s390x")
    chip = load_chip("reference")
    names = []
    for case in fitting_cases(chip):
        names.append(case.name)
        (tmp_path / f"{case.name}.slb").write_bytes(pack_case(case, chip))
    script = 'for bundle in *.slb; do "$@" --self-test "$bundle" || exit 1; done'
    result = subprocess.run(
        ["bash", "-c", script, "bash", *start],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(names)


def test_static_analysis_finds_nothing() -> None:
    native_build.require("cppcheck", "cppcheck")
    subprocess.run(
        ["cppcheck", "--quiet", "--std=c99", "--enable=warning,portability,performance"]
        + ["--error-exitcode=1", "--inline-suppr", "--suppress=missingIncludeSystem"]
        + [f"-I{folder}" for folder in INCLUDES]
        + [f"-I{NPU}"]
        + [str(source) for source in (*SOURCES, *PROGRAMS, NPU / "npu_driver.c")],
        check=True,
    )
