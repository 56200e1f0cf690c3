"""Folders and faults: what fails is told, the rest goes on, nothing is half written."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from strategies import random_image

from starlight.cli import main
from starlight.denoise.denoiser import Denoiser
from starlight.denoise.images import read_image, write_image
from starlight.denoise.jobs import Settings, denoise_paths, list_media
from starlight.images import read_pixels, write_pixels
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(DenoisingNetwork(DenoiserConfig(width=4, levels=1)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """in/{a.png,deep.png,sub/b.tif,notes.txt,.hidden.png}; broken.png, cut.png cannot be read."""
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    write_image(source / "a.png", random_image(0, 21, 34))
    write_image(source / "sub" / "b.tif", random_image(1, 20, 33))
    write_image(source / ".hidden.png", random_image(1, 20, 33))
    write_pixels(source / "deep.png", random_image(2, 20, 33).astype(np.uint16) * 200)
    (source / "broken.png").write_bytes(b"no image")
    (source / "cut.png").write_bytes((source / "a.png").read_bytes()[:900])
    (source / "notes.txt").write_text("not an image")
    return source


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(main, ["denoise", *map(str, arguments)], **options)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_keeps_its_layout_and_goes_on_after_failures(folder: Path, weights: Path) -> None:
    out = folder.parent / "out"
    result = run(folder, out, "--weights", weights, "--json", folder.parent / "report.json")
    assert result.exit_code == 1
    assert result.stdout == f"3 denoised, 2 failed: {out}\n"
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert [line.split()[1] for line in errors] == [f"{folder}/broken.png:", f"{folder}/cut.png:"]
    assert all("intact image file" in line for line in errors)
    assert files(out) == {"a.png", "deep.png", "sub/b.tif"}
    denoiser = Denoiser(weights)
    wanted = denoiser.denoise(read_image(folder / "sub/b.tif"))
    np.testing.assert_array_equal(read_image(out / "sub/b.tif"), wanted)
    deep = denoiser.denoise(np.asarray(read_pixels(folder / "deep.png")))
    np.testing.assert_array_equal(read_pixels(out / "deep.png"), deep)
    report = json.loads((folder.parent / "report.json").read_text())
    assert len(report["files"]) == 5
    assert sum(row["failure"] is not None for row in report["files"]) == 2


def test_nothing_is_overwritten_unless_told(folder: Path, weights: Path) -> None:
    out = folder.parent / "out"
    run(folder, out, "--weights", weights)
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    refused = run(folder, out, "--weights", weights)
    assert refused.exit_code == 2
    assert "outputs must not exist yet, got 3 of 5" in refused.stderr
    (out / "a.png").unlink()
    resumed = run(folder, out, "--weights", weights, "--resume")
    assert resumed.stdout == f"1 denoised, 2 skipped, 2 failed: {out}\n"
    after = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert {name for name in after if after[name] != before[name]} == {"a.png"}
    replaced = run(folder, out, "--weights", weights, "--overwrite")
    assert replaced.stdout.startswith("3 denoised, 2 failed")
    assert run(folder, out, "--overwrite", "--resume").exit_code == 2


def test_deep_input_is_rounded_when_told(folder: Path, weights: Path) -> None:
    out = folder.parent / "out.png"
    result = run(folder / "deep.png", out, "--weights", weights, "--to-8bit", "nearest")
    assert result.exit_code == 0
    deep = read_pixels(folder / "deep.png").astype(np.int64)
    eight = np.floor(deep / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(read_image(out), Denoiser(weights).denoise(eight))


def test_a_target_inside_the_source_is_not_read(folder: Path, weights: Path) -> None:
    for _ in range(2):
        result = run(folder, folder / "sub" / "out", "--weights", weights, "--overwrite")
        assert "3 denoised, 2 failed" in result.stdout
    assert run(folder, folder, "--weights", weights).exit_code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become someone who cannot read")
def test_folders_that_cannot_be_read_are_told(weights: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        for name in ("open", "shut"):
            (Path(place) / name).mkdir()
            write_image(Path(place) / name / "a.png", random_image(0, 4, 4))
        (Path(place) / "shut").chmod(0o700)
        os.seteuid(65534)
        try:
            found, failed = list_media(Path(place))
        finally:
            os.seteuid(0)
    assert [path.parent.name for path in found] == ["open"]
    assert [outcome.source.name for outcome in failed] == ["shut"]
    assert "folder must be readable" in str(failed[0].failure)


def limit_files() -> None:
    """Writing beyond 4000 bytes fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, weights: Path, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "large.png", random_image(0, 90, 90))
    (tmp_path / "in" / "large.png").rename(tmp_path / "in" / f"large{suffix}")
    write_image(tmp_path / "in" / "small.png", np.zeros((8, 8, 3), np.uint8))
    words = ["denoise", tmp_path / "in", tmp_path / "out", "--weights", weights]
    done = subprocess.run(
        [sys.executable, "-m", "starlight", *map(str, words)],
        capture_output=True, text=True, check=False, preexec_fn=limit_files,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"large{suffix}" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "out") == {"small.png"}


def test_a_killed_run_leaves_no_output_and_the_next_one_cleans_up(
    tmp_path: Path, weights: Path
) -> None:
    (tmp_path / "in").mkdir()
    large = tmp_path / "in" / "large.png"
    write_image(large, np.tile(random_image(0, 64, 64), (40, 20, 1)))
    out = tmp_path / "out"
    words = ["denoise", large.parent, out, "--weights", weights, "--tile", "32"]
    child = subprocess.Popen([sys.executable, "-m", "starlight", *map(str, words)])
    try:
        while child.poll() is None and not (out.is_dir() and list(out.iterdir())):
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert [name for name in files(out) if not name.endswith(".partial")] == []
    assert len(files(out)) == 1
    (outcome,) = denoise_paths(Denoiser(weights), large.parent, out, Settings("skip"))
    assert outcome.failure is None
    assert files(out) == {"large.png"}


def test_raw_frames_go_through_a_pipe(weights: Path) -> None:
    frames = np.stack([random_image(seed, 20, 30) for seed in range(3)])
    result = run("-", "-", "--raw", "30x20", "--weights", weights, input=frames.tobytes())
    assert result.exit_code == 0, result.stderr
    found = np.frombuffer(result.stdout_bytes, np.uint8).reshape(frames.shape)
    np.testing.assert_array_equal(found, Denoiser(weights).denoise(frames))
    assert "3 frames denoised" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("- - --raw 30", "--raw must read WIDTHxHEIGHT, got '30'"),
        ("a - --raw 30x20", "--raw must stand with pipes"),
        ("none out", "source must exist"),
        (". out --strength 2", "strength must lie in"),
        (". out --executor engine", "weights must be a bundle"),
        (". out --codec-option crf", "must read NAME=VALUE"),
        (". out", "folder must hold a file ending in"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words.split(), "--weights", weights)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_a_folder_may_hold_videos_too(tmp_path: Path, weights: Path) -> None:
    av = pytest.importorskip("av", reason="video needs PyAV")
    (tmp_path / "in").mkdir()
    with av.open(str(tmp_path / "in/a.mkv"), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for seed in range(3):
            frame = av.VideoFrame.from_ndarray(random_image(seed, 32, 32), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    (tmp_path / "in/bad.mp4").write_bytes(b"no video")
    result = run(tmp_path / "in", tmp_path / "out", "--weights", weights)
    assert (result.exit_code, result.stdout) == (1, f"1 denoised, 1 failed: {tmp_path / 'out'}\n")
    assert files(tmp_path / "out") == {"a.mkv"}
