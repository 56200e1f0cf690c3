"""The capture benchmark: one real run of the smallest size, sessions taken up again, raw frames."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks import capture
from benchmarks.capture import CASES, COMPARISONS, Options, compare, main
from benchmarks.raw_frames import read_fits, sensor_gains, taps
from starlight.denoise.images import write_image
from starlight.evaluation import evaluation_photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_image(folder / "a.png", evaluation_photographs()["chelsea"][50:146, 100:228])
    return folder


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def test_a_small_run_gives_its_tables_and_takes_sessions_up_again(
    photographs: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    options = ("--data", photographs, "--out", tmp_path / "runs", "--scenes", 1, "--frames", 8)
    once = run("--only", "steps", "--json", report, *options)
    figures = json.loads(report.read_text())["capture"]["steps"]
    assert f"{figures['scenes'][0]['psnr_db']:.2f}" in once.output
    frame = tmp_path / "runs" / "default" / "a" / "target" / "0003.png"
    written = frame.stat().st_mtime_ns
    assert run("--only", "steps", *options).exit_code == 0
    assert frame.stat().st_mtime_ns == written
    other = ("--data", photographs, "--out", tmp_path / "runs", "--scenes", 1, "--frames", 9)
    assert run("--only", "steps", *other).exit_code == 0
    assert frame.stat().st_mtime_ns != written


def test_a_choice_that_does_not_fit_is_a_row(photographs: Path, tmp_path: Path) -> None:
    options = Options(tmp_path, photographs, scenes=1, frames=8, memory_size=(1, 1))
    table, figures = compare("default", options)
    rows = {row["choice"]: row for row in figures["rows"]}
    assert "literal must flag at most 5%" in rows["dead pixels literal"]["refused"]
    assert rows["defaults"]["psnr_db"] > rows["plain mean"]["psnr_db"] + 3.0
    assert len(table.splitlines()) == 2 + len(rows)
    assert len(rows) == 2 + len(COMPARISONS["default"].changes)


def test_every_case_has_its_place_in_the_document() -> None:
    document = capture.DOCUMENT.read_text(encoding="utf-8")
    for case in CASES:
        assert f"<!-- {case}:begin -->" in document
        assert f"<!-- {case}:end -->" in document


def fits(shape: tuple[int, int], bits: str = "16") -> bytes:
    values = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": "2", "NAXIS1": f"{shape[1]} / columns",
              "NAXIS2": str(shape[0]), "BZERO": "32768"}  # fmt: skip
    cards = [*(f"{name:8}= {value:>20}" for name, value in values.items()), "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    pixels = np.arange(shape[0] * shape[1]) - 32768
    return gzip.compress(header + pixels.astype(">i2").tobytes())


def test_fits_frames_are_read_with_their_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.fit.gz"
    path.write_bytes(fits((3, 5)))
    np.testing.assert_array_equal(read_fits(path), np.arange(15).reshape(3, 5))
    path.write_bytes(fits((3, 5), "-32"))
    with pytest.raises(ValueError, match="must have 16 bits and two axes"):
        read_fits(path)


def test_taps_are_quarters_without_blank_columns() -> None:
    found = taps(1040, 2152)
    seen = np.zeros((1040, 2152), int)
    for area in found.values():
        seen[area] += 1
        assert seen[area].shape == (512, 1024)
    assert seen.max() == 1


def test_a_real_sensor_has_the_gain_its_authors_work_with() -> None:
    rows = sensor_gains()
    if not rows:
        pytest.skip("the frames come with msfc-ccd: pip install --no-deps msfc-ccd")
    assert len(rows) == 4
    for row in rows:
        assert 2.3 < row.electrons_per_dn < 2.7
        assert 8.0 < row.read_noise_dn * row.electrons_per_dn < 13.0
