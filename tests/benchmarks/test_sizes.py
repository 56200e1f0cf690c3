"""Sizes: the slope, and one run of the smallest trainings into a document."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import sizes
from benchmarks.ablation import CONDITIONS


def row(macs: float, *psnr: float) -> dict[str, Any]:
    return {"macs_per_pixel": macs, "psnr": dict(zip(CONDITIONS, psnr, strict=True))}


def test_slope_is_per_doubling() -> None:
    rows = [row(10, 30.0, 33.0), row(20, 30.5, 33.0), row(80, 31.5, 33.0)]
    assert sizes.per_doubling(rows, CONDITIONS[0]) == pytest.approx(0.5)
    assert sizes.per_doubling(rows, CONDITIONS[1]) == pytest.approx(0.0)


def test_a_run_writes_table_and_picture_and_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, picture = tmp_path / "MODEL.md", tmp_path / "sizes.png"
    document.write_text("<!-- sizes:begin -->\n<!-- sizes:end -->\n")
    monkeypatch.setattr(sizes, "ROOT", tmp_path)
    monkeypatch.setattr(sizes, "DOCUMENT", document)
    monkeypatch.setattr(sizes, "PICTURE", picture)
    figures = tmp_path / "figures.json"
    arguments = ["--steps", 1, "--patch", 16, "--limit", 1, "--crop", 32, "--jobs", 1]
    arguments += ["--out", tmp_path / "run", "--json", figures, "--write-docs"]

    first = CliRunner().invoke(sizes.main, [str(argument) for argument in arguments])
    assert first.exit_code == 0, first.output
    assert "3 trainings, 0 of them done" in first.output
    result = json.loads(figures.read_text())["sizes"]
    assert [row["size"] for row in result["rows"]] == ["width=8", "width=16", "width=24"]
    costs = [row["macs_per_pixel"] for row in result["rows"]]
    assert costs == sorted(costs)
    for row in result["rows"]:
        assert f"{row['psnr']['sigma_25']:.2f}" in document.read_text()
    with Image.open(picture) as image:
        assert image.width > 500

    again = CliRunner().invoke(sizes.main, [str(argument) for argument in arguments])
    assert "3 trainings, 3 of them done" in again.output
    assert json.loads(figures.read_text())["sizes"]["rows"] == result["rows"]


def test_documents_want_every_size() -> None:
    outcome = CliRunner().invoke(sizes.main, ["--write-docs", "--only", "width=8"])
    assert outcome.exit_code == 2
    assert "--write-docs must have all cases, got width=8" in outcome.stderr
