"""The commands: a session made, measured, turned into pairs; one line for every error."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from starlight.capture.session import KnownTruth, Session, read_session
from starlight.cli import main
from starlight.images import read_pixels, write_pixels
from starlight.noise.pairs import read_pairs

SMALL = ("--frames", 4, "--dark", 3, "--noisy", 2)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def simulate(photographs: Path, out: Path, *options: object) -> Session:
    result = run("capture", "simulate", photographs, out, *SMALL, *options)
    assert result.exit_code == 0, result.output
    return read_session(out)


def test_a_simulated_session_is_whole_and_repeatable(photographs: Path, tmp_path: Path) -> None:
    one, two, other = (
        simulate(photographs, tmp_path / name, "--scenes", 2, "--seed", seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [scene.name for scene in one.scenes] == ["chelsea", "coffee"]
    for first, second in zip(one.scenes, two.scenes, strict=True):
        assert [len(first.dark), len(first.target), len(first.noisy)] == [3, 4, 2]
        for kind in ("dark", "target", "noisy"):
            for left, right in zip(getattr(first, kind), getattr(second, kind), strict=True):
                assert left.path.read_bytes() == right.path.read_bytes()
    noisy = [read_pixels(session.scenes[0].target[0].path) for session in (one, other)]
    assert (noisy[0] != noisy[1]).any()
    known = KnownTruth.load(one.scenes[0].folder)
    assert known is not None
    assert abs(noisy[0].mean() - known.truth.mean()) < 0.05 * known.truth.mean()


@pytest.mark.parametrize(
    "options",
    [("--isp",), ("--isp", "--isp-bits", 16), ("--pattern", "GBRG"), ("--pattern", "none")],
)
def test_every_kind_of_frame_goes_all_the_way(
    photographs: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    simulate(photographs, tmp_path / "s", *options)
    report = tmp_path / "report.json"
    result = run("truth", tmp_path / "s", tmp_path / "o", "--alignment", "none", "--json", report)
    assert result.exit_code == 0, result.output
    figures = json.loads(report.read_text())
    assert figures["psnr_db"] > 20.0
    assert figures["scenes"][0]["psnr_plain_mean_db"] == figures["psnr_plain_mean_db"]
    assert figures == json.loads((tmp_path / "o" / "report" / "report.json").read_text())
    pairs = read_pairs(tmp_path / "o")
    assert len(pairs.pairs) == 2
    for pair in pairs.pairs:
        assert read_pixels(pair.truth).dtype == read_pixels(pair.noise).dtype == np.uint16
        assert read_pixels(pair.truth).shape == read_pixels(pair.noise).shape
    mended = read_pixels(tmp_path / "o" / "report" / "chelsea_mended.png")
    assert mended.shape == (120, 161)
    assert (tmp_path / "o" / "report" / "chelsea.png").stat().st_size > 10_000


def test_estimate_prints_and_writes_the_same_figures(session: Session, tmp_path: Path) -> None:
    report = tmp_path / "noise.json"
    result = run("capture", "estimate", session.folder, "--json", report)
    assert result.exit_code == 0
    (row,) = json.loads(report.read_text())["noise"]
    assert abs(row["fit"]["a"] / 3.513262 - 1.0) < 0.05
    assert f"a = {row['fit']['a']:.4f}" in result.output
    assert row["fit"]["electrons_per_dn"] == 1.0 / row["fit"]["a"]


def test_estimate_takes_flat_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arguments: list[object] = []
    for level in (50.0, 500.0, 2000.0):
        for name in "ab":
            frame = 2.0 * rng.poisson(level / 2.0, (256, 256)) + rng.normal(100.0, 3.0, (256, 256))
            write_pixels(tmp_path / f"{level}{name}.tif", np.rint(frame).astype(np.uint16))
        arguments += ["--flat", tmp_path / f"{level}a.tif", tmp_path / f"{level}b.tif"]
    report = tmp_path / "noise.json"
    result = run("capture", "estimate", *arguments, "--black", 100, "--json", report)
    assert result.exit_code == 0
    (row,) = json.loads(report.read_text())["noise"]
    assert abs(row["fit"]["a"] / 2.0 - 1.0) < 0.02


def test_a_session_without_noisy_frames_gives_truth_alone(session: Session, tmp_path: Path) -> None:
    scene = session.scenes[0]
    folder = tmp_path / "s"
    rows = []
    with (session.folder / "metadata.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            if row["kind"] != "noisy" and int(row["file"][-8:-4]) < 3:
                rows.append(row)
    for row in rows:
        path = folder / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((session.folder / row["file"]).read_bytes())
    with (folder / "metadata.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (folder / "format.json").write_bytes((session.folder / "format.json").read_bytes())
    result = run("truth", folder, tmp_path / "o", "--plain-mean")
    assert result.exit_code == 0
    assert "1 truth images, 0 pairs" in result.output
    assert (tmp_path / "o" / "truth" / f"{scene.name}.png").is_file()
    assert not (tmp_path / "o" / "pairs.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("truth NONE o", "folder must hold metadata.csv"),
        ("truth SESSION SESSION", "OUT must not be SESSION itself"),
        ("truth SESSION o --dead-pixels literal", "literal must flag at most 5%"),
        ("truth SESSION o --dead-threshold -1", "truth: dead_threshold must be greater than 0"),
        ("truth SESSION o --json none/x.json", "folder must exist"),
        ("truth SESSION o --alignment threshold --light-threshold 1e-9", "must be at least one"),
        ("capture simulate NONE o", "folder must exist"),
        ("capture simulate PHOTOS PHOTOS", "target must be a new or empty folder"),
        ("capture simulate PHOTOS o --gain 99", "analog_gain must lie in the calibrated range"),
        ("capture simulate PHOTOS o --scenes 3", "scenes must be at most the 2 photographs"),
        ("capture simulate PHOTOS o --frames 1", "simulation: frames must be greater than"),
        ("capture simulate PHOTOS o --hot 2", "camera: hot must be less than"),
        ("capture simulate PHOTOS o --profile none", "name must be a shipped profile"),
        ("capture estimate", "source must be a SESSION or --flat pairs"),
        ("capture estimate SESSION --flat a.png b.png", "source must be a SESSION or --flat"),
        ("capture estimate --flat a.png b.png", "path must be an existing file"),
    ],
)
def test_every_error_is_one_line_and_leaves_nothing(
    session: Session,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"SESSION": session.folder, "PHOTOS": photographs}
    result = run(*(names.get(word, word) for word in arguments.split()))
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert not list(tmp_path.iterdir())
