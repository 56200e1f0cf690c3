"""Bursts streamed from disk: frames are read one at a time, memory does not grow with their number.

Two passes: `survey` finds each frame's light and the plain mean, `accumulate` the statistics of
every pixel over the frames that are kept. Sums are integers, so the order of frames does not
matter. The mode needs samples themselves; `clipped_modes` reads them for the few pixels that clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starlight.bayer import Float64
from starlight.capture.clipping import modes
from starlight.capture.session import Frame, FrameFormat, read_frame
from starlight.capture.stillness import Shift, block_means, block_size, shift_between
from starlight.images import Pixels

# Rows worked on at once hold about so many samples.
_BAND_SAMPLES = 1 << 20
# For the mode the samples of some pixels are held, no more than so many frames have together.
_HELD_FRAMES = 4


@dataclass(frozen=True)
class Survey:
    """What one pass over a burst finds.

    levels: float64 [F], mean reading of each frame, black level subtracted.
    rows: float64 [F, H], mean reading of each row of each frame.
    reference: float32 [h, w], block means of the first frame (`stillness.block_means`).
    shifts: (rows, columns) in pixels of each frame against the first, None where it cannot be told.
    mean: float64, shape of a frame: plain mean of all frames.
    """

    levels: Float64
    rows: Float64
    reference: NDArray[np.float32]
    shifts: list[Shift | None]
    mean: Float64


@dataclass(frozen=True)
class BurstStatistics:
    """Integer sums over the frames of a burst, all of a frame's shape; exact to 65,537 frames.

    frames: number of frames. total: sum of all samples. inside, inside_total, inside_squares:
    number, sum and sum of squares of the samples that are not clipped; below, above: number of
    samples at or beyond black clip and white level.
    """

    frames: int
    total: NDArray[np.uint32]
    inside_total: NDArray[np.uint32]
    inside_squares: NDArray[np.uint64]
    below: NDArray[np.uint32]
    above: NDArray[np.uint32]

    @property
    def inside(self) -> NDArray[np.uint32]:
        """Number of samples that are not clipped."""
        return np.uint32(self.frames) - self.below - self.above

    @property
    def mean(self) -> Float64:
        """Plain mean of all samples, clipped ones as they are."""
        return self.total / self.frames

    @property
    def variance(self) -> Float64:
        """Unbiased variance over the frames of the samples that are not clipped; 0 below two."""
        count = self.inside.astype(np.float64)
        total = self.inside_total.astype(np.float64)
        scatter = self.inside_squares - total * (total / np.maximum(count, 1.0))
        return np.maximum(scatter, 0.0) / np.maximum(count - 1.0, 1.0)


def _frames(
    frames: Sequence[Frame], format: FrameFormat, what: str, progress: bool
) -> Iterator[Pixels]:
    shape: tuple[int, ...] | None = None
    for frame in tqdm(frames, desc=what, leave=False, disable=None if progress else True):
        pixels = read_frame(frame, format, shape)
        shape = pixels.shape
        yield pixels


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that cover a frame, each of about 2^20 samples."""
    rows = max(1, _BAND_SAMPLES // max(1, int(np.prod(shape[1:]))))
    for top in range(0, shape[0], rows):
        yield slice(top, min(top + rows, shape[0]))


def survey(
    frames: Sequence[Frame], format: FrameFormat, what: str = "survey", progress: bool = False
) -> Survey:
    """Light of each frame and the plain mean, in one pass; frames: at least one.

    Raises FileNotFoundError or ValueError for a file at fault.
    """
    levels, rows = [], []
    shifts: list[Shift | None] = []
    reference: NDArray[np.float32] | None = None
    total: NDArray[np.uint32] | None = None
    for pixels in _frames(frames, format, what, progress):
        if total is None:
            total = np.zeros(pixels.shape, np.uint32)
        row_axes = tuple(range(1, pixels.ndim))
        row_means = np.empty(pixels.shape[0])
        for band in bands(pixels.shape):
            total[band] += pixels[band]
            row_means[band] = pixels[band].mean(row_axes, dtype=np.float64)
        rows.append(row_means)
        levels.append(float(row_means.mean()) - format.black_level)
        blocks = block_means(pixels)
        if reference is None:
            reference = blocks
        shifts.append(shift_between(reference, blocks, block_size(pixels.shape)))
    assert total is not None
    assert reference is not None
    return Survey(np.array(levels), np.array(rows), reference, shifts, total / len(frames))


def accumulate(
    frames: Sequence[Frame], format: FrameFormat, what: str = "statistics", progress: bool = False
) -> BurstStatistics:
    """Statistics of every pixel over the frames, in one pass; frames: at least one.

    Raises FileNotFoundError or ValueError for a file at fault.
    """
    found: BurstStatistics | None = None
    for pixels in _frames(frames, format, what, progress):
        if found is None:
            found = BurstStatistics(
                len(frames),
                total=np.zeros(pixels.shape, np.uint32),
                inside_total=np.zeros(pixels.shape, np.uint32),
                inside_squares=np.zeros(pixels.shape, np.uint64),
                below=np.zeros(pixels.shape, np.uint32),
                above=np.zeros(pixels.shape, np.uint32),
            )
        for band in bands(pixels.shape):
            samples = pixels[band].astype(np.uint32)
            below, above = clipped(samples, format)
            found.total[band] += samples
            found.below[band] += below
            found.above[band] += above
            samples[below | above] = 0
            found.inside_total[band] += samples
            found.inside_squares[band] += samples * samples  # 16 bits squared fit 32
    assert found is not None
    return found


def clipped(
    samples: NDArray[Any], format: FrameFormat
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(at or below black clip, at or above white level), of the samples' shape."""
    return samples <= format.black_clip, samples >= format.white_level


def clipped_modes(
    frames: Sequence[Frame],
    format: FrameFormat,
    pixels_wanted: NDArray[np.bool_],
    progress: bool = False,
) -> Float64:
    """Mode over the frames of chosen pixels, float64 [M] in the order of `flatnonzero`.

    Reads the frames once per so many wanted samples as four frames have.
    """
    places = np.flatnonzero(pixels_wanted)
    found = np.empty(len(places))
    step = max(1, _HELD_FRAMES * pixels_wanted.size // len(frames))
    for first in range(0, len(places), step):
        chosen = places[first : first + step]
        samples = np.empty((len(frames), len(chosen)), np.uint16)
        for index, pixels in enumerate(_frames(frames, format, "modes", progress)):
            samples[index] = pixels.reshape(-1)[chosen]
        band = max(1, min(_BAND_SAMPLES, pixels_wanted.size) // len(frames))
        for start in range(0, len(chosen), band):
            part = samples[:, start : start + band]
            found[first + start : first + start + part.shape[1]] = modes(part)
    return found
