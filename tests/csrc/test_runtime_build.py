"""How the runtime compiles, what it links, and the two programs made of it."""

import os
import re
import subprocess
import zlib
from pathlib import Path

import native_build
import numpy as np
import pytest
from runtime_library import INCLUDES, RUNTIME, SOURCES
from strategies import TINY, random_graph, random_image

from hls_export.bundle import pack_bundle
from hls_export.npu import load_chip
from quant import interpret

GRAPH = random_graph(2, TINY)
BUNDLE = pack_bundle(GRAPH, load_chip("reference"))
FREESTANDING = {"memcpy", "memset", "memcmp", "memmove"}


@pytest.mark.parametrize("level", ["-O0", "-O3"])
@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", native_build.C99), ("g++", ("-x", "c++", *native_build.CXX17))],
    ids=["c99", "c++17"],
)
def test_compiles_without_a_warning(compiler: str, flags: tuple[str, ...], level: str) -> None:
    native_build.build_shared(SOURCES, INCLUDES, [*flags, level], compiler=compiler)


@pytest.fixture(scope="module")
def symbols() -> list[tuple[str, str]]:
    """(type, name) of every symbol of the runtime as a freestanding library, by nm."""
    flags = [*native_build.C99, "-ffreestanding", "-nostdlib"]
    library = native_build.build_shared(SOURCES, INCLUDES, flags)
    listed = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    return [(line.split()[-2], line.split()[-1]) for line in listed.splitlines()]


def test_links_nothing_but_the_memory_functions(symbols: list[tuple[str, str]]) -> None:
    undefined = {name for kind, name in symbols if kind in "Uw"}
    assert {"memcpy", "memcmp"} <= undefined <= FREESTANDING


def test_writes_no_global(symbols: list[tuple[str, str]]) -> None:
    marks = {"_DYNAMIC", "_GLOBAL_OFFSET_TABLE_", "__bss_start", "_edata", "_end"}  # the linker's
    assert {name for kind, name in symbols if kind in "bBdDC"} <= marks
    assert {kind for kind, name in symbols if name == "sl_open"} == {"T"}


@pytest.fixture(scope="module")
def slrun() -> Path:
    return native_build.build_program(
        [*SOURCES, RUNTIME / "driver.c"], INCLUDES, [*native_build.C99, *native_build.SANITIZERS]
    )


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments], capture_output=True, text=True, check=False
    )


def ppm(image: np.ndarray, comment: str = "") -> bytes:
    height, width, _ = image.shape
    return f"P6\n{comment}{width} {height}\n255\n".encode() + image.tobytes()


@pytest.mark.parametrize("comment", ["", "# a comment\n"])
def test_slrun_denoises_a_ppm(slrun: Path, tmp_path: Path, comment: str) -> None:
    image = random_image(3, 13, 18)
    (tmp_path / "model.slb").write_bytes(BUNDLE)
    (tmp_path / "in.ppm").write_bytes(ppm(image, comment))
    result = call(slrun, *(tmp_path / name for name in ("model.slb", "in.ppm", "out.ppm")))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "out.ppm").read_bytes() == ppm(interpret.run(GRAPH, image))
    assert sorted(os.listdir(tmp_path)) == ["in.ppm", "model.slb", "out.ppm"]


def test_slrun_runs_the_self_test(slrun: Path, tmp_path: Path) -> None:
    (tmp_path / "model.slb").write_bytes(BUNDLE)
    result = call(slrun, "--self-test", tmp_path / "model.slb")
    assert result.returncode == 0
    assert result.stdout.endswith(f"{len(GRAPH.layers)} layers reproduce their test vectors\n")


GOOD_IMAGE = ppm(random_image(3, 4, 5))


@pytest.mark.parametrize(
    ("bundle", "image", "message"),
    [
        (b"", GOOD_IMAGE, "model.slb: bundle must hold as many bytes as its header states"),
        (BUNDLE[:-1], GOOD_IMAGE, "model.slb: bundle must hold as many bytes"),
        (None, GOOD_IMAGE, "model.slb: No such file"),
        (BUNDLE, None, "in.ppm: No such file"),
        (BUNDLE, b"", r"in.ppm: image must be a binary PPM \(P6\)"),
        (BUNDLE, b"P5\n1 1\n255\n\0", r"in.ppm: image must be a binary PPM \(P6\)"),
        (BUNDLE, b"P6\n0 1\n255\n", "PPM header must give width and height"),
        (BUNDLE, b"P6\n1 99999999999\n255\n", "PPM header must give width and height"),
        (BUNDLE, b"P6\n1 1\n65535\n123456", "PPM header must give width and height"),
        (BUNDLE, b"P6\n1 1\n255", "PPM header must give width and height"),
        (BUNDLE, b"P6 # no end", "PPM header must give width and height"),
        (BUNDLE, GOOD_IMAGE[:-1], "PPM must hold 3 bytes for each pixel"),
        (BUNDLE, GOOD_IMAGE + b"x", "PPM must hold 3 bytes for each pixel"),
        (BUNDLE, ppm(np.zeros((1, 3841, 3), np.uint8)), "image must fit the chip's largest frame"),
    ],
)
def test_slrun_refuses_in_one_line(
    slrun: Path, tmp_path: Path, bundle: bytes | None, image: bytes | None, message: str
) -> None:
    for name, content in (("model.slb", bundle), ("in.ppm", image)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    result = call(slrun, *(tmp_path / name for name in ("model.slb", "in.ppm", "out.ppm")))
    assert result.returncode == 1
    assert re.fullmatch(rf"slrun: .*{message}.*\n", result.stderr)
    assert not (tmp_path / "out.ppm").exists()


def test_slrun_says_how_it_is_called(slrun: Path) -> None:
    for arguments in ([], ["a"], ["a", "b"], ["a", "b", "c", "d"]):
        result = call(slrun, *arguments)
        assert result.returncode == 1
        assert result.stderr.startswith("slrun: usage: slrun BUNDLE IN.ppm OUT.ppm")


def test_slrun_leaves_nothing_half_written(slrun: Path, tmp_path: Path) -> None:
    (tmp_path / "model.slb").write_bytes(BUNDLE)
    (tmp_path / "in.ppm").write_bytes(GOOD_IMAGE)
    (tmp_path / "out.ppm").mkdir()
    result = call(slrun, *(tmp_path / name for name in ("model.slb", "in.ppm", "out.ppm")))
    assert result.returncode == 1
    assert sorted(os.listdir(tmp_path)) == ["in.ppm", "model.slb", "out.ppm"]


def firmware(bundle: bytes, folder: Path) -> Path:
    path = folder / f"{zlib.crc32(bundle):08x}.slb"  # part of the build's key
    path.write_bytes(bundle)
    return native_build.build_program(
        [RUNTIME / "bundle.S", RUNTIME / "main.c", *SOURCES],
        INCLUDES,
        [*native_build.C99, f'-DSL_BUNDLE="{path}"', "-DSL_ARENA_BYTES=100000"],
    )


def test_firmware_opens_its_linked_bundle_and_tests_itself(tmp_path: Path) -> None:
    assert call(firmware(BUNDLE, tmp_path)).returncode == 0


def test_firmware_notices_damage(tmp_path: Path) -> None:
    header = (RUNTIME / "starlight_runtime.h").read_text()
    names = re.findall(r"^    (SL_[A-Z0-9_]+)(?: = 0)?,$", header, re.MULTILINE)
    damaged = bytearray(BUNDLE)
    damaged[-1] ^= 1
    assert names[call(firmware(bytes(damaged), tmp_path)).returncode] == "SL_BAD_TRAILER"
