"""The libFuzzer target: a short run, and what its corpus is. The long run is `make fuzz`."""

import re
import subprocess
from pathlib import Path

import fuzz_target
import pytest

from hls_export.bundle import read_bundle
from hls_export.compression import decompress
from hls_export.executors.c_runtime import native

RUNS = 20_000


@pytest.fixture(scope="module")
def target() -> Path:
    try:
        return fuzz_target.build()
    except RuntimeError as error:
        if "must be on the PATH" in str(error) or "clang_rt" in str(error):
            pytest.skip("needs clang with libFuzzer: apt install clang libclang-rt-14-dev")
        raise


def test_the_corpus_is_lawful_and_small() -> None:
    paths = sorted(fuzz_target.CORPUS.iterdir())
    seeds = fuzz_target.seeds()
    assert {path.name for path in paths} == set(seeds)
    for path in paths:
        data, seed = path.read_bytes(), seeds[path.name]
        assert len(data) < 14_000
        if path.name.startswith(fuzz_target.PACKED):
            data, seed = decompress(data), decompress(seed)
        graph, made = read_bundle(data).graph(), read_bundle(seed)
        assert [layer.name for layer in graph.layers] == [
            layer.name for layer in made.graph().layers
        ]
        assert native().Model(data).self_test() is None


def test_a_short_run_finds_nothing(target: Path, tmp_path: Path) -> None:
    """No crash, no report of a sanitizer, no bundle that takes seconds; and the mutator seals."""
    command = [str(target), *fuzz_target.LIMITS, f"-runs={RUNS}", "-seed=1"]
    result = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", str(tmp_path), str(fuzz_target.CORPUS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    done = re.search(r"Done (\d+) runs", result.stderr)
    assert done is not None
    assert int(done[1]) >= RUNS
    # What reached new code is mostly whole bundles: without sealing, next to none would open.
    lawful = 0
    for path in tmp_path.iterdir():
        try:
            native().Model(path.read_bytes())
            lawful += 1
        except ValueError:
            pass
    assert lawful >= 10


def test_a_crash_would_be_seen(target: Path) -> None:
    """The target itself, given a corpus file, opens and runs it."""
    for path in fuzz_target.CORPUS.iterdir():
        result = subprocess.run([str(target), str(path)], capture_output=True, check=False)
        assert result.returncode == 0
