"""The cycle model beside ZigZag: where both say the same, and which is the lower bound."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import cycles, zigzag
from benchmarks.cycles import cells_of, measure, total
from hls_export.npu import load_chip

REASON = zigzag.missing()
REFERENCE = load_chip("reference")


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_array_agrees_to_the_cycle_and_dram_is_the_lower_bound() -> None:
    rows = measure(REFERENCE, height=64, width=96, layers=4)
    for row in rows:
        mine, theirs = row["ours"], row["zigzag"]
        assert mine["compute_cycles"] == theirs["compute_cycles"]
        assert mine["dram_bytes"] <= theirs["dram_bytes"] * 1.01
        assert mine["cycles"] <= theirs["cycles"] * 1.01
        assert row["deviation"]["cycles"] == mine["cycles"] / theirs["cycles"] - 1
    together = total(rows)
    assert together["ours"]["compute_cycles"] == sum(
        len(row["layers"]) * row["ours"]["compute_cycles"] for row in rows
    )
    assert cells_of(together)[0] == "all layers"


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_command_prints_a_table_and_writes_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--quick", "--layers", "1", "--json", str(file)]
    result = CliRunner().invoke(cycles.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))["cycles"]["rows"]
    assert row["layers"] == ["head"]
    assert "| head " in result.output


def test_missing_estimator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zigzag.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(cycles.main, ["--quick"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "ZigZag left out: ZigZag must be installed: pip install" in result.stderr
    with pytest.raises(ImportError, match="ZigZag must be installed"):
        zigzag.estimate(REFERENCE, [])
    written = CliRunner().invoke(cycles.main, ["--quick", "--write-docs"])
    assert written.exit_code != 0


def test_a_layer_and_a_chip_in_its_terms() -> None:
    document = zigzag.accelerator(REFERENCE)
    performance = REFERENCE.performance
    assert document["operational_array"]["sizes"] == [
        performance.input_lanes,
        performance.output_lanes,
        performance.pixel_lanes,
    ]
    memories = document["memories"]
    assert list(memories)[-1] == "dram"  # from the array outwards
    assert memories["sram"]["size"] == 8 * performance.sram_bytes
    layer = zigzag.Convolution("down", 16, 32, 5, 7, 3, 2)
    load = zigzag.workload(0, layer)
    assert dict(zip(load["loop_dims"], load["loop_sizes"], strict=True)) == {
        "B": 1, "K": 32, "C": 16, "OY": 5, "OX": 7, "FY": 3, "FX": 3,
    }  # fmt: skip
    assert load["pr_loop_sizes"] == [14, 10]
