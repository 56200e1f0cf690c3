"""Damaged and forged bundles against the firmware runtime, under address and UB sanitizers."""

import subprocess
from pathlib import Path

import fuzz_target
import native_build
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_library import INCLUDES, SOURCES, statuses
from strategies import STYLES, TINY, Style, random_graph, seeds

from hls_export import container
from hls_export.bundle import pack_bundle
from hls_export.npu import load_chip
from quant.topology import Topology

HARNESS = [Path(__file__).parent / "mutate_bundle.c", *fuzz_target.TRIAL]
SMALLEST = Topology(widths=(1, 1), growths=(1, 1))


@pytest.fixture(scope="module")
def sanitized() -> Path:
    flags = [*fuzz_target.FLAGS, *native_build.SANITIZERS]
    return native_build.build_program([*HARNESS, *SOURCES], INCLUDES, flags)


@pytest.fixture(scope="module")
def plain() -> Path:
    return native_build.build_program([*HARNESS, *SOURCES], INCLUDES, [*fuzz_target.FLAGS, "-O3"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def written(folder: Path, topology: Topology, style: Style = "natural", seed: int = 0) -> Path:
    graph = random_graph(seed, topology, style)
    path = folder / f"{graph.name}-{'-'.join(map(str, topology.widths))}.slb"
    path.write_bytes(pack_bundle(graph, load_chip("reference")))
    return path


def harness(program: Path, *arguments: object) -> dict[str, int]:
    """How often each status was met; a sanitizer's report or a bundle wrongly accepted fails."""
    result = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    counts = map(int, result.stdout.split())
    return {name: n for name, n in zip(statuses(), counts, strict=False) if n}


def test_every_flipped_bit_is_refused(plain: Path, folder: Path) -> None:
    path = written(folder, SMALLEST)
    data = path.read_bytes()
    met = harness(plain, "flip", path)
    assert sum(met.values()) == 8 * len(data)
    sections = container.read_container(data)
    assert met["SL_BAD_SECTION_CRC"] == 8 * sum(len(section.data) for section in sections)
    assert met["SL_BAD_TABLE_CRC"] == 8 * 32 * len(sections)
    assert met["SL_BAD_TRAILER"] == 8 * 64
    assert met["SL_BAD_MAGIC"] == 8 * 8


def test_every_cut_is_refused(sanitized: Path, folder: Path) -> None:
    path = written(folder, SMALLEST)
    assert harness(sanitized, "cut", path) == {"SL_TRUNCATED": path.stat().st_size}


@pytest.mark.parametrize("style", STYLES)
def test_forged_bundles_are_refused_or_run(sanitized: Path, folder: Path, style: Style) -> None:
    met = harness(sanitized, "forge", written(folder, TINY, style), 20, 1000)
    assert met["SL_OK"] > 100  # lawful changes were run
    assert met["SL_SELF_TEST_FAILED"] > 10  # and they changed what is computed
    assert len(met) >= 18


@given(seeds, st.sampled_from(STYLES), seeds)
def test_forged_bundles_of_any_graph(
    sanitized: Path, folder: Path, graph: int, style: Style, seed: int
) -> None:
    path = written(folder, TINY, style, graph)
    assert sum(harness(sanitized, "forge", path, seed, 25).values()) >= 25
