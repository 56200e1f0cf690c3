"""Capture sessions on disk: scenes of dark, target and noisy frames with their recorded settings.

SESSION/metadata.csv                     file, kind, analog_gain, digital_gain, lux
SESSION/format.json                     the format of the frames (`FrameFormat`)
SESSION/SCENE/{dark,target,noisy}/*.png  or .tif, .tiff: 8 or 16 bits, RGB or one plane
SESSION/SCENE/known.npz                  of simulated sessions: the truth (`KnownTruth`)
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from starlight.bayer import Float64, Pattern
from starlight.files import read_table, write_atomically, write_table
from starlight.images import CAMERA_SUFFIXES, Pixels, read_pixels
from starlight.noise.tone import tone_curve

Kind = Literal["dark", "target", "noisy"]
KINDS: tuple[str, ...] = get_args(Kind)
METADATA = "metadata.csv"
FORMAT = "format.json"
KNOWN = "known.npz"
COLUMNS = ("file", "kind", "analog_gain", "digital_gain", "lux")


class FrameFormat(BaseModel):
    """How the integers of a session's frames read.

    pattern      Bayer pattern of one-plane frames; None: RGB, or grey
    black_level  reading without light
    white_level  reading at and above which a sample is clipped
    black_clip   reading at and below which a sample is clipped
    tone         tone curve that encoded the frames; None: linear
    Defaults are those of 8-bit encoded images without black level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: Pattern | None = None
    black_level: float = 0.0
    white_level: float = 255.0
    black_clip: float = 0.0
    tone: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> FrameFormat:
        levels = (self.black_clip, self.black_level, self.white_level)
        if not all(map(math.isfinite, levels)) or not 0 <= levels[0] <= levels[1] < levels[2]:
            raise ValueError(
                "frame format: levels must be 0 <= black_clip <= black_level < white_level, "
                f"got {levels[0]:g}, {levels[1]:g}, {levels[2]:g}"
            )
        if levels[2] > 65535:
            raise ValueError(f"frame format: white_level must be <= 65535, got {levels[2]:g}")
        if self.tone is not None:
            tone_curve(self.tone)
        return self

    @property
    def range(self) -> float:
        """White minus black."""
        return self.white_level - self.black_level

    def to_linear(self, readings: NDArray[Any]) -> Float64:
        """Light above black, 1 at white, of readings; float64 of any shape."""
        light = (np.asarray(readings, np.float64) - self.black_level) / self.range
        return light if self.tone is None else tone_curve(self.tone).to_linear(light)

    def to_readings(self, linear: Float64) -> Float64:
        """Readings of light, the inverse of `to_linear`; neither rounded nor clipped."""
        encoded = linear if self.tone is None else tone_curve(self.tone).to_encoded(linear)
        return encoded * self.range + self.black_level


@dataclass(frozen=True)
class Frame:
    """One file of a session and what was recorded with it."""

    path: Path
    kind: Kind
    analog_gain: float
    digital_gain: float
    lux: float

    @property
    def gains(self) -> tuple[float, float]:
        """(analog, digital)."""
        return self.analog_gain, self.digital_gain


@dataclass(frozen=True)
class Scene:
    """The frames of one scene, in the order of metadata.csv; target frames share their gains."""

    name: str
    folder: Path
    dark: tuple[Frame, ...]
    target: tuple[Frame, ...]
    noisy: tuple[Frame, ...]


@dataclass(frozen=True)
class Session:
    """A folder of scenes and the format of its frames."""

    folder: Path
    format: FrameFormat
    scenes: tuple[Scene, ...]


@dataclass(frozen=True)
class KnownTruth:
    """What a simulated scene holds in fact.

    truth: float64, shape of a frame, in readings, at the target frames' gains and nominal light.
    kind: uint8 of the sensor's shape, 0 where the pixel is sound (`camera.DEFECT_KINDS`).
    amplitude: float64, mean reading of a target frame minus truth, clipped both, 0 where sound.
    deviation: float64, standard deviation of one target frame's sound reading.
    The last three are of the raw frame; for ISP frames they are not in the frame's units.
    """

    truth: Float64
    kind: NDArray[np.uint8]
    amplitude: Float64
    deviation: Float64

    def save(self, folder: Path) -> None:
        """Write `known.npz` into a scene's folder, atomically."""
        stream = io.BytesIO()
        np.savez(stream, **{name: getattr(self, name) for name in self.__dataclass_fields__})
        write_atomically(folder / KNOWN, stream.getvalue())

    @classmethod
    def load(cls, folder: Path) -> KnownTruth | None:
        """What `save` wrote, None where there is none. Raises ValueError for a damaged file."""
        path = folder / KNOWN
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(*(arrays[name] for name in cls.__dataclass_fields__))
        except Exception as error:
            raise ValueError(f"session: {path} must be a simulator's file, got {error}") from None


def read_session(folder: str | os.PathLike[str], format: FrameFormat | None = None) -> Session:
    """A session and its checked metadata; frames themselves are not read.

    A scene without dark frames takes those of the first scene with its gains.
    format: in place of format.json, which a session of 8-bit linear RGB may leave out.
    Raises FileNotFoundError for a missing folder, table or frame, ValueError for a row at fault
    (with its number; the header is row 1), a frame without a row, or target frames whose gains
    differ from each other's or the dark frames'.
    """
    folder = Path(folder)
    table = folder / METADATA
    if not table.is_file():
        raise FileNotFoundError(
            f"session {folder}: folder must hold {METADATA} with the columns "
            f"{', '.join(COLUMNS)}, got {'none' if folder.is_dir() else 'no such folder'}"
        )
    frames = _frames_of(table)
    scenes = []
    listed = {frame.path for members in frames.values() for frame in members}
    for name, members in frames.items():
        for kind in KINDS:
            _check_all_listed(folder / name / kind, listed)
        kinds = {kind: tuple(f for f in members if f.kind == kind) for kind in KINDS}
        scene = Scene(name, folder / name, **kinds)
        _check_gains(scene)
        scenes.append(scene)
    return Session(folder, format or _read_format(folder), tuple(_share_dark(scenes)))


def write_session(folder: Path, format: FrameFormat, frames: Iterable[Frame]) -> None:
    """Write format.json and metadata.csv of a folder whose frames are there, atomically."""
    write_atomically(folder / FORMAT, (format.model_dump_json(indent=2) + "\n").encode())
    rows = (
        {
            "file": frame.path.relative_to(folder).as_posix(),
            **{name: getattr(frame, name) for name in COLUMNS[1:]},
        }
        for frame in frames
    )
    write_table(folder / METADATA, COLUMNS, rows)


def read_frame(frame: Frame, format: FrameFormat, shape: tuple[int, ...] | None = None) -> Pixels:
    """Pixels of a frame, checked against the format and, when given, the first frame's shape.

    Raises FileNotFoundError or ValueError as `read_pixels`, or for a mosaic in three planes, RGB
    in one, a reading above white level, another shape.
    """
    pixels = read_pixels(frame.path)
    if shape is not None and pixels.shape != shape:
        raise ValueError(
            f"frame {frame.path}: shape must be {list(shape)} as the scene's first frame, "
            f"got {list(pixels.shape)}"
        )
    if format.pattern is not None and pixels.ndim != 2:
        raise ValueError(
            f"frame {frame.path}: a mosaic ({format.pattern}) must have one plane, "
            f"got shape {list(pixels.shape)}"
        )
    if (highest := int(pixels.max())) > format.white_level:
        raise ValueError(
            f"frame {frame.path}: readings must not exceed white_level {format.white_level:g}, "
            f"got {highest}; state the levels in {FORMAT}"
        )
    return pixels


def _frames_of(table: Path) -> dict[str, list[Frame]]:
    """Scene name to frames, in order of first appearance."""
    frames: dict[str, list[Frame]] = {}
    seen: dict[Path, int] = {}
    for number, row in read_table(table, COLUMNS):
        what = f"{table} row {number}"
        frame = _parse(what, table.parent, row)
        if frame.path in seen:
            raise ValueError(f"{what}: file must be named once, got row {seen[frame.path]}'s again")
        seen[frame.path] = number
        frames.setdefault(frame.path.relative_to(table.parent).parts[0], []).append(frame)
    return frames


def _parse(what: str, folder: Path, row: Mapping[str, str]) -> Frame:
    file = PurePosixPath(row["file"])
    if row["kind"] not in KINDS:
        raise ValueError(f"{what}: kind must be one of {', '.join(KINDS)}, got {row['kind']!r}")
    if len(file.parts) != 3 or ".." in file.parts or file.parts[1] != row["kind"]:
        raise ValueError(f"{what}: file must read SCENE/{row['kind']}/NAME, got {row['file']!r}")
    if file.suffix.lower() not in CAMERA_SUFFIXES:
        raise ValueError(
            f"{what}: file must end in one of {' '.join(CAMERA_SUFFIXES)}, got {row['file']!r}"
        )
    numbers = []
    for name, rule, lowest in (
        ("analog_gain", "a positive number", math.ulp(0.0)),
        ("digital_gain", "a positive number", math.ulp(0.0)),
        ("lux", "a number >= 0", 0.0),
    ):
        try:
            value = float(row[name])
        except ValueError:
            value = math.nan
        if not lowest <= value < math.inf:
            raise ValueError(f"{what}: {name} must be {rule}, got {row[name]!r}")
        numbers.append(value)
    path = folder / file
    if not path.is_file():
        raise FileNotFoundError(f"{what}: file must exist, got {path}")
    return Frame(path, row["kind"], *numbers)  # type: ignore[arg-type]


def _check_all_listed(folder: Path, listed: set[Path]) -> None:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        is_frame = path.suffix.lower() in CAMERA_SUFFIXES and not path.name.startswith(".")
        if is_frame and path not in listed:
            raise ValueError(f"session: {METADATA} must have a row for every frame, got {path}")


def _check_gains(scene: Scene) -> None:
    for frame in (*scene.target, *scene.dark):
        if scene.target and frame.gains != scene.target[0].gains:
            analog, digital = scene.target[0].gains
            raise ValueError(
                f"scene {scene.name}: {frame.kind} frames must share the target's gains "
                f"{analog:g} and {digital:g}, got {frame.gains[0]:g} and {frame.gains[1]:g} of "
                f"{frame.path.name}"
            )


def _share_dark(scenes: Sequence[Scene]) -> Iterator[Scene]:
    """Scenes without dark frames get those of the first scene with their gains, if there is one."""
    for scene in scenes:
        gains = scene.target[0].gains if scene.target else None
        donors = [other.dark for other in scenes if other.dark and other.dark[0].gains == gains]
        yield scene if scene.dark or not donors else replace(scene, dark=donors[0])


def _read_format(folder: Path) -> FrameFormat:
    path = folder / FORMAT
    if not path.is_file():
        return FrameFormat()
    try:
        return FrameFormat.model_validate_json(path.read_bytes())
    except ValidationError as error:
        reason = str(error).replace("\n", "; ")
        raise ValueError(f"session: {path} must be a frame format, got {reason}") from None
