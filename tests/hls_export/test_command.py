"""`python -m hls_export`: what it prints, writes and refuses."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result
from strategies import random_graph

from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.npu import known_chips, load_chip
from quant.graph_files import save_graph


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, text: str) -> None:
    """One line on stderr that says `text`, exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


@pytest.fixture
def graph_file(tmp_path):
    save_graph(random_graph(6), tmp_path / "graph.json")
    return tmp_path / "graph.json"


@pytest.fixture
def bundle_file(tmp_path):
    path = tmp_path / "model.slb"
    path.write_bytes(pack_bundle(random_graph(6), load_chip("reference")))
    return path


def test_export_then_inspect(tmp_path, graph_file) -> None:
    figures = tmp_path / "figures.json"
    result = call("export", graph_file, tmp_path / "out", "--frame", "64x48", "--json", figures)
    assert result.exit_code == 0, result.output
    path = tmp_path / "out" / "model.slb"
    found = json.loads(figures.read_text())
    first, joins, plan = result.output.splitlines()
    assert first == f"{path}: {path.stat().st_size} bytes, 17 layers"
    assert joins.startswith("joins copy nothing: ")
    assert f"{found['plan']['sram_bytes']} bytes of SRAM" in plan
    assert found["bytes"] == path.stat().st_size
    assert found["frame"] == {"width": 64, "height": 48}
    assert found["saved_by_joins"]["total_bytes"] > 64 * 48 * 3

    result = call("inspect", path, "--json", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    bundle = read_bundle(path)
    lines = result.output.splitlines()
    for kind in ("MODL", "CHIP", "STRS", "BUFS", "LAYR", "CHAN", "WGHT", "VECT", "META"):
        assert [line.split()[-1] for line in lines if line.startswith(kind)] == ["ok"]
    assert any("reference" in line and "3840x2160" in line for line in lines)
    largest = bundle.plan.arena * (3840 // 2) * (2160 // 2)
    assert any(f" {largest} bytes for the largest frame" in line for line in lines)
    for layer in bundle.layers:
        assert any(f" {bundle.text(layer.name)} " in line for line in lines)
    assert all(line == line.rstrip() for line in lines)

    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["error"] is None
    assert found["header"]["file_bytes"] == bundle.bytes
    assert [section["intact"] for section in found["sections"]] == [True] * 10
    assert found["model"]["arena_bytes_per_cell"] == bundle.plan.arena
    assert [layer["name"] for layer in found["layers"]] == [
        bundle.text(layer.name) for layer in bundle.layers
    ]


def test_damaged_bundle_is_shown_and_refused(tmp_path, bundle_file) -> None:
    data = bytearray(bundle_file.read_bytes())
    weights = next(s for s in read_bundle(bytes(data)).sections if s.kind == "WGHT")
    data[weights.offset + 5] ^= 4
    bundle_file.write_bytes(data)
    result = call("inspect", bundle_file, "--json", tmp_path / "found.json")
    assert_refused(result, f"{bundle_file}: bundle: section WGHT CRC-32 must be")
    states = {line.split()[0]: line.split()[-1] for line in result.stdout.splitlines()[4:]}
    assert {kind for kind, state in states.items() if state == "BAD"} == {"WGHT"}
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert "section WGHT CRC-32" in found["error"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "size must be at least 128, got 0"),
        (b"SLB", "size must be at least 128, got 3"),
        (b"\x89PNG" + bytes(200), "magic must be"),
    ],
)
def test_inspect_refuses_what_is_no_bundle(tmp_path, content: bytes, text: str) -> None:
    (tmp_path / "x.slb").write_bytes(content)
    assert_refused(call("inspect", tmp_path / "x.slb"), f"x.slb: bundle: {text}")


def test_what_is_not_there_is_refused(tmp_path, graph_file) -> None:
    assert_refused(call("inspect", tmp_path / "no.slb"), "bundle: file must exist, got")
    assert_refused(call("inspect", tmp_path), "bundle: file must exist, got")
    assert_refused(call("export", tmp_path / "no.json", tmp_path / "out"), "must exist")
    assert_refused(
        call("export", graph_file, tmp_path / "out", "--chip", "nosuch"),
        f"must be one of {', '.join(known_chips())}",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("frame", ["", "3", "x", "0x5", "3x", "3x-4", "axb", "1x2x3"])
def test_frame_that_is_none_is_refused(tmp_path, graph_file, frame: str) -> None:
    result = call("export", graph_file, tmp_path / "out", "--frame", frame)
    assert_refused(result, f"export: frame must be WIDTHxHEIGHT in pixels, got {frame!r}")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"arithmetic": "dyadic"}'])
def test_broken_graph_is_refused_and_nothing_is_written(tmp_path, graph_file, content: str) -> None:
    graph_file.write_text(content, encoding="utf-8")
    assert_refused(call("export", graph_file, tmp_path / "out"), "graph ")
    assert not (tmp_path / "out").exists()


def test_module_runs_as_a_program(bundle_file) -> None:
    program = [sys.executable, "-m", "hls_export", "inspect"]
    good = subprocess.run([*program, bundle_file], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run([*program, "absent"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "Error: bundle: file must exist, got 'absent'\n"


def test_no_module_of_hls_export_loads_torch() -> None:
    program = (
        "import sys, pkgutil, importlib, hls_export\n"
        "found = [m.name for m in pkgutil.walk_packages(hls_export.__path__, 'hls_export.')]\n"
        "assert 'hls_export.bundle' in found and 'hls_export.verify' in found, found\n"
        "for name in found: importlib.import_module(name)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'brevitas')])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
