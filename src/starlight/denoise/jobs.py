"""Files, folders, videos and pipes through a `Denoiser`: what each became is told one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from tqdm import tqdm

from starlight.denoise.denoiser import Denoiser
from starlight.denoise.pictures import (
    PICTURE_SUFFIXES,
    check_target,
    open_picture,
    write_picture,
)
from starlight.denoise.video import (
    VIDEO_SUFFIXES,
    VideoSettings,
    denoise_video,
    is_camera,
    raw_frames,
)
from starlight.errors import USER_ERRORS
from starlight.files import check_folder

MEDIA_SUFFIXES: Final = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
Existing = Literal["refuse", "overwrite", "skip"]


@dataclass(frozen=True)
class Settings:
    """existing: what becomes of outputs that are there. video: how videos are written, and the
    rounding of input of more than 8 bits, images too.
    """

    existing: Existing = "refuse"
    video: VideoSettings = field(default_factory=VideoSettings)


@dataclass(frozen=True)
class Outcome:
    """What became of a file: frames denoised (1 of an image), or `skipped`, or why it failed."""

    source: Path
    target: Path | None
    frames: int = 0
    skipped: bool = False
    failure: str | None = None


def denoise_paths(
    denoiser: Denoiser,
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Denoise an image or video to a file, or all of a folder into another, of the same layout.

    source: a file, a camera (/dev/video0), or a folder: everything below it whose ending is one of
        `MEDIA_SUFFIXES`, hidden files left out. target: a file, or a folder, made if source is one.
    A file that fails is an outcome with its reason and leaves nothing behind; the rest goes on.
    Raises FileNotFoundError or ValueError before any work where the names alone tell: source is not
    there or has nothing, outputs that exist, an output that is its own input.
    """
    source, target, settings = Path(source), Path(target), settings or Settings()
    pairs, failed = _pairs(source, target)
    for read, write in pairs:
        if read.resolve() == write.resolve():
            raise ValueError(f"denoise: target must not be source itself, got {write}")
    there = [write for _, write in pairs if write.exists()]
    if there and settings.existing == "refuse":
        raise ValueError(
            f"denoise: outputs must not exist yet, got {len(there)} of {len(pairs)} that do "
            f"(first: {there[0]}); --resume skips them, --overwrite replaces them"
        )
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    outcomes = list(failed)
    bar = tqdm(pairs, disable=None if progress and source.is_dir() else True, unit="file")
    for read, write in bar:
        bar.set_postfix_str(read.name, refresh=False)
        if write.exists() and settings.existing == "skip":
            outcomes.append(Outcome(read, write, skipped=True))
            continue
        try:
            if source.is_dir():
                write.parent.mkdir(parents=True, exist_ok=True)
            frames = denoise_file(denoiser, read, write, settings, progress)
        except (*USER_ERRORS, MemoryError) as error:
            outcomes.append(Outcome(read, write, failure=str(error) or type(error).__name__))
        else:
            outcomes.append(Outcome(read, write, frames))
    return outcomes


def denoise_file(
    denoiser: Denoiser, source: Path, target: Path, settings: Settings, progress: bool = False
) -> int:
    """One image, video or camera to a file that is complete or absent; returns the frames.

    Raises what the readers, the writers and the denoiser raise.
    """
    check_folder(target)
    if is_camera(source) or source.suffix.lower() in VIDEO_SUFFIXES:
        if target.suffix.lower() not in VIDEO_SUFFIXES:
            raise ValueError(
                f"video: name must end in one of {' '.join(VIDEO_SUFFIXES)}, got {target.name!r}"
            )
        with _frame_bar(progress, source.name) as report:
            return denoise_video(
                denoiser.denoise, source, target, settings.video, report, denoiser.check_dtype
            )
    with open_picture(source) as picture:
        if settings.video.to_8bit is not None:
            picture = picture.in_8_bits(settings.video.to_8bit)
        check_target(target, picture)
        denoiser.check_dtype(picture.dtype)
        write_picture(target, denoiser.bands(picture.rows(), *picture.shape[:2]), picture)
    return 1


def denoise_y4m(
    denoiser: Denoiser,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    settings: VideoSettings,
    progress: bool = False,
) -> int:
    """A y4m stream, or any video, to a y4m stream or a video file, frame by frame."""
    with _frame_bar(progress, "stdin") as report:
        return denoise_video(
            denoiser.denoise, source, target, settings, report, denoiser.check_dtype
        )


def denoise_raw(
    denoiser: Denoiser,
    source: BinaryIO,
    target: BinaryIO,
    size: tuple[int, int],
    dtype: Any = np.uint8,
    progress: bool = False,
) -> int:
    """Bare RGB frames of size (width, height) from a stream to another; returns how many.

    dtype: uint8, or uint16 (little-endian). Each frame is passed on before the next is read.
    """
    width, height = size
    denoiser.check_dtype(dtype)
    little = np.dtype(dtype).newbyteorder("<")
    count = 0
    with _frame_bar(progress, "stdin") as report:
        for frame in raw_frames(source, height, width, dtype):
            target.write(denoiser.denoise(frame).astype(little, copy=False).tobytes())
            target.flush()
            count += 1
            report(count, None)
    return count


def _pairs(source: Path, target: Path) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """What is read and what is written, and the folders that cannot be read."""
    if is_camera(source):
        return [(source, target)], []
    if not source.exists():
        raise FileNotFoundError(f"denoise: source must exist, got {source}")
    if not source.is_dir():
        write = target / source.name if target.is_dir() else target
        if write.suffix.lower() not in MEDIA_SUFFIXES:
            raise ValueError(
                f"denoise: name must end in one of {' '.join(MEDIA_SUFFIXES)}, got {write.name!r}"
            )
        check_folder(write)
        return [(source, write)], []
    if target.exists() and not target.is_dir():
        raise ValueError(f"denoise: target must be a folder as source is, got {target}")
    inner = target.resolve()
    if inner == source.resolve():
        raise ValueError(f"denoise: target must not be source itself, got {target}")
    found, failed = list_media(source)
    pairs = [
        (path, target / path.relative_to(source))
        for path in found
        if inner not in path.resolve().parents
    ]
    if not pairs and not failed:
        raise ValueError(
            f"denoise: folder must hold a file ending in {' '.join(MEDIA_SUFFIXES)}, got {source}"
        )
    return pairs, failed


def list_media(folder: Path) -> tuple[list[Path], list[Outcome]]:
    """Images and videos below a folder, in order of name, and what could not be read of it."""
    failed: list[Outcome] = []

    def refuse(error: OSError) -> None:
        place = Path(error.filename or folder)
        failed.append(Outcome(place, None, failure=f"folder must be readable, got {error}"))

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in MEDIA_SUFFIXES
        ]
    return found, failed


@contextmanager
def _frame_bar(progress: bool, name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Frames per second and time left on stderr, where it is a terminal."""
    with tqdm(desc=name, disable=None if progress else True, unit="frame", leave=False) as bar:

        def report(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
