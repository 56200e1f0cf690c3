"""Sessions on disk: written and read back, and every kind of damage told by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from starlight.capture.session import (
    FORMAT,
    METADATA,
    FrameFormat,
    KnownTruth,
    Session,
    read_frame,
    read_session,
)
from starlight.images import write_pixels


@pytest.fixture
def small(session: Session, tmp_path: Path) -> Path:
    """A copy of the session's tables with few frames."""
    scene = session.scenes[0]
    folder = tmp_path / "s"
    rows = ["file,kind,analog_gain,digital_gain,lux"]
    for frame in (*scene.dark[:2], *scene.target[:3], *scene.noisy[:1]):
        copy = folder / frame.path.relative_to(session.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(frame.path, copy)
        gains = f"{frame.analog_gain},{frame.digital_gain}"
        rows.append(f"{copy.relative_to(folder)},{frame.kind},{gains},{frame.lux}")
    (folder / METADATA).write_text("\n".join(rows) + "\n")
    shutil.copy(session.folder / FORMAT, folder / FORMAT)
    return folder


def test_a_session_comes_back(session: Session, small: Path) -> None:
    found = read_session(small)
    assert found.format == session.format
    (scene,) = found.scenes
    assert [len(scene.dark), len(scene.target), len(scene.noisy)] == [2, 3, 1]
    assert scene.noisy[0].gains == session.scenes[0].noisy[0].gains
    pixels = read_frame(scene.target[0], found.format)
    assert pixels.shape == (120, 161)
    assert pixels.dtype == np.uint16


def test_dark_frames_serve_every_scene_of_their_gains(small: Path) -> None:
    for gain, name in ((1.0, "same"), (2.0, "other")):
        shutil.copytree(small / "chelsea" / "target", small / name / "target")
        with (small / METADATA).open("a") as table:
            for path in sorted((small / name / "target").iterdir()):
                table.write(f"{name}/target/{path.name},target,{gain},1.0,200\n")
    chelsea, same, other = read_session(small).scenes
    assert same.dark == chelsea.dark
    assert len(chelsea.dark) == 2
    assert other.dark == ()


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / METADATA).read_text()
        assert old in text
        (folder / METADATA).write_text(text.replace(old, new, 1))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def unlisted(folder: Path) -> None:
    write_pixels(folder / "chelsea" / "target" / "x.png", np.zeros((4, 4), np.uint8))


def empty_table(folder: Path) -> None:
    (folder / METADATA).write_text("file,kind,analog_gain,digital_gain,lux\n")


def bad_format(folder: Path) -> None:
    (folder / FORMAT).write_text('{"pattern": "RGBG"}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove(METADATA), "folder must hold metadata.csv with the columns .* got none"),
        (remove("chelsea/target/0001.png"), r"row 5: file must exist, got .*0001.png"),
        (replaced("file,kind", "path,kind"), "columns must be file, kind, .* got path, kind"),
        (replaced(",target,", ",bright,"), "row 4: kind must be one of dark, target, noisy"),
        (replaced("target/0001.png,target", "target/0001.png,dark"), "file must read SCENE/dark"),
        (replaced("chelsea/target/0001", "../target/0001"), "file must read SCENE/target/NAME"),
        (replaced("0001.png", "0001.raw"), "row 3: file must end in one of"),
        (replaced("target,1.0", "target,0"), "analog_gain must be a positive number, got '0'"),
        (replaced("target,1.0", "target,nan"), "analog_gain must be a positive number, got 'nan'"),
        (replaced("dark,1.0,1.0,0.0", "dark,1.0,1.0,-1"), "row 2: lux must be a number >= 0"),
        (replaced("target,1.0,1.0,200.0", "target,1.0,1.0"), "row 4: cells must be 5, got 4"),
        (replaced("0001.png", "0000.png"), "row 3: file must be named once, got row 2's again"),
        (
            replaced("target,1.0", "target,2.0"),
            "must share the target's gains 2 and 1, got 1 and 1",
        ),
        (unlisted, "must have a row for every frame, got .*x.png"),
        (empty_table, "rows must be at least one, got none"),
        (bad_format, "format.json must be a frame format"),
    ],
)
def test_damage_is_told_by_name(small: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(small)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_session(small)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got no such folder"):
        read_session(tmp_path / "none")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4), np.uint16), r"shape must be \[120, 161\].* got \[4, 4\]"),
        (np.zeros((120, 161, 3), np.uint16), r"shape must be \[120, 161\]"),
        (np.full((120, 161), 4096, np.uint16), "must not exceed white_level 4095, got 4096"),
    ],
)
def test_frames_that_do_not_fit_are_refused(small: Path, pixels: np.ndarray, message: str) -> None:
    found = read_session(small)
    frame = found.scenes[0].target[1]
    write_pixels(frame.path, pixels)
    with pytest.raises(ValueError, match=message):
        read_frame(frame, found.format, (120, 161))


def test_a_mosaic_has_one_plane(small: Path) -> None:
    found = read_session(small)
    write_pixels(found.scenes[0].target[0].path, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a mosaic \(RGGB\) must have one plane"):
        read_frame(found.scenes[0].target[0], found.format)


@pytest.mark.parametrize(
    "levels",
    [
        {"black_level": 300.0},
        {"black_level": -1.0, "black_clip": -1.0},
        {"black_clip": 5.0},
        {"white_level": 70000.0},
        {"white_level": float("nan")},
    ],
)
def test_levels_out_of_order_are_refused(levels: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"levels must be|white_level must be"):
        FrameFormat(**levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("tone", [None, "srgb"])
def test_readings_and_light_are_inverse(tone: str | None) -> None:
    format = FrameFormat(black_level=20.0, white_level=1000.0, tone=tone)
    readings = np.linspace(0.0, 1000.0, 77)
    np.testing.assert_allclose(format.to_readings(format.to_linear(readings)), readings)
    assert format.to_linear(np.array([20.0, 1000.0])).tolist() == [0.0, 1.0]


def test_a_damaged_truth_file_is_told(session: Session, tmp_path: Path) -> None:
    known = KnownTruth.load(session.scenes[0].folder)
    assert known is not None
    assert known.truth.shape == known.kind.shape == (120, 161)
    assert KnownTruth.load(tmp_path) is None
    (tmp_path / "known.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="must be a simulator's file"):
        KnownTruth.load(tmp_path)
