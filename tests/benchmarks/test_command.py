"""`python -m benchmarks`: list, selection, JSON, one line for every error."""

import json
import subprocess
import sys
from pathlib import Path

import emulator
import gpu
import pytest
import raw_module
from click.testing import CliRunner, Result

from benchmarks import ROOT, executors
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.executors import OPEN
from hls_export.executors import EXECUTORS, Executor
from hls_export.executors import Result as ExecutorResult
from quant.intmath import UInt8Array

TINY = "tiny-48x32"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def test_the_list_names_every_benchmark_and_case() -> None:
    result = run("--list")
    assert result.exit_code == 0
    for name, command in BENCHMARKS.items():
        assert f"{name} " in result.output
        for case in command.cases:
            assert case in result.output


def test_what_times_integers_or_starts_trainings_loads_no_torch() -> None:
    modules = "benchmarks.executors, benchmarks.choices"
    code = f"import sys, {modules}; print([*{{'torch', 'brevitas'}} & {{*sys.modules}}])"
    fresh = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert fresh.stdout == "[]\n"


def test_only_selects_the_benchmarks_that_have_the_case() -> None:
    result = run("--list", "--only", "skip=module")
    assert "choices " in result.output
    assert "executors " not in result.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["nothing"],
            "Error: benchmarks: name must be one of executors, choices, sizes, recipe, ops, "
            "engine, cuda, planner, cycles, pipeline, flicker, got 'nothing'\n",
        ),
        (["executors", "--only", "base"], f"Error: benchmarks: case must be one of {TINY}, "),
        (["--json", "no/such/folder/x.json"], "Error: write x.json: folder must exist, got "),
    ],
)
def test_an_error_is_one_line(arguments: list[str], line: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_quick_run_writes_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    result = run("executors", "--quick", "--json", file)
    assert result.exit_code == 0
    document = json.loads(file.read_text(encoding="utf-8"))["executors"]
    assert document["machine"]["cores"] >= 1
    rows = document["rows"]
    here = [executor.name for executor in EXECUTORS if executor.available() is None]
    assert [(row["case"], row["executor"]) for row in rows] == [(TINY, name) for name in here]
    for row in rows:
        assert 0 < row["p20"] <= row["median_ms"] <= row["p80"]
        assert row["gmac_per_s"] > 0
        assert row["macs"] > 0
        assert row["arena_bytes"] > 0
        assert row["executor"] in result.output


def test_a_benchmark_writes_the_same_document_on_its_own(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--only", TINY, "--seconds", "0", "--least", "2", "--json", str(file)]
    result = CliRunner().invoke(executors.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["executors"]["rows"]
    assert {row["runs"] for row in rows} == {2}


def test_every_executor_can_be_timed() -> None:
    assert set(OPEN) == {executor.name for executor in EXECUTORS}


class OffByOne:
    """An executor that is wrong in one bit of one layer."""

    name = "c"

    def available(self) -> str | None:
        return None

    def run(self, bundle: bytes, image: UInt8Array) -> ExecutorResult:
        result = EXECUTORS[0].run(bundle, image)
        result.layers["middle.dense.conv2"][0, 0, 0] ^= 1
        return result


def test_an_executor_that_is_wrong_anywhere_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    peers: tuple[Executor, ...] = (EXECUTORS[0], OffByOne())
    monkeypatch.setattr(executors, "EXECUTORS", peers)
    result = run("executors", "--quick")
    assert result.exit_code == 2
    assert f"{TINY}: c must equal numpy, got layer middle.dense.conv2 differs" in result.stderr


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
def test_cuda_kernels_are_counted_without_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    result = run("cuda", "--quick", "--json", file)
    assert result.exit_code == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))["cuda"]["paper"]
    assert (row["kernel"], row["launches"]) == ("dense_block", ["pack_weights", "dense_block"])
    assert row["activation_bytes"] >= row["compulsory_bytes"] == 2 * 2 * 16 * 24 * 40
    for name, reason in (("torch", gpu.operators_missing()), ("CuPy", raw_module.missing())):
        assert reason is None or f"times through {name} left out: {reason}" in result.stderr
