"""From a capture session to a pair set: truth images beside noise frames of the same exposure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starlight.bayer import Float64
from starlight.capture.burst import clipped
from starlight.capture.dead_pixels import mend
from starlight.capture.exposure import corrected, exposure_ratio
from starlight.capture.session import FORMAT, FrameFormat, Scene, read_frame
from starlight.capture.stillness import block_means, block_size, check_still, shift_between
from starlight.capture.truth import SceneTruth
from starlight.files import write_atomically
from starlight.images import write_pixels
from starlight.noise.pairs import Pair

Exposure = Literal["corrected", "as_captured"]
EXPOSURES: tuple[str, ...] = get_args(Exposure)

# Pair sets hold 16 bits, white at the top: no step of a burst's mean is lost.
_FULL_SCALE = 65535.0


@dataclass(frozen=True)
class ScenePairs:
    """The pairs of a scene.

    left_out: file to reason of frames too dark for an exposure fit. clipped: share of the noise
    samples that the 16 bits cut off. unknown_shifts: frames too noisy or flat to tell.
    """

    pairs: tuple[Pair, ...]
    left_out: dict[str, str]
    clipped: float
    unknown_shifts: int


def pair_format(format: FrameFormat) -> FrameFormat:
    """How the images of a pair set read: the session's levels with white at 65535."""
    scale = _FULL_SCALE / format.white_level
    return format.model_copy(
        update={
            "black_level": format.black_level * scale,
            "black_clip": format.black_clip * scale,
            "white_level": _FULL_SCALE,
        }
    )


def write_format(out: Path, format: FrameFormat) -> None:
    """Write the format of a pair set's images beside its pairs.csv."""
    data = pair_format(format).model_dump_json(indent=2) + "\n"
    write_atomically(out / FORMAT, data.encode())


def write_scene(
    out: Path,
    scene: Scene,
    truth: SceneTruth,
    format: FrameFormat,
    exposure: Exposure = "corrected",
    mend_noise: bool = False,
    most_shift: float = 0.5,
    progress: bool = False,
) -> ScenePairs:
    """Write truth/SCENE.png and noise/SCENE/NNNN.png into a pair set's folder; return the pairs.

    exposure: `corrected` divides a noise frame's light by its fitted ratio to the truth;
    `as_captured` leaves it; the ratio is recorded either way. mend_noise: the truth's flawed
    pixels are mended in the noise frames too. A frame whose exposure cannot be fitted is left
    out. Raises FileNotFoundError or ValueError for a frame at fault or a camera that moved between
    truth and noise.
    """
    truth_path = out / "truth" / f"{scene.name}.png"
    noise_folder = out / "noise" / scene.name
    truth_path.parent.mkdir(parents=True, exist_ok=True)
    write_pixels(truth_path, _to_16_bits(truth.truth, format)[0])
    if scene.noisy:
        noise_folder.mkdir(parents=True, exist_ok=True)
    pairs: list[Pair] = []
    left_out: dict[str, str] = {}
    cut, unknown = 0.0, 0
    for number, frame in enumerate(
        tqdm(
            scene.noisy, desc=f"{scene.name} noise", leave=False, disable=None if progress else True
        )
    ):
        name = str(frame.path.relative_to(scene.folder))
        try:
            pixels = read_frame(frame, format, truth.truth.shape)
            size = block_size(pixels.shape)
            shift = shift_between(truth.reference, block_means(pixels), size)
            _, untold = check_still([name], [shift], most_shift)
        except ValueError as error:
            raise ValueError(f"scene {scene.name}: {error}") from None
        try:
            ratio = exposure_ratio(pixels, truth.truth, truth.flawed, format)
        except ValueError as error:
            left_out[name] = str(error)
            continue
        unknown += untold
        readings: Float64 = pixels.astype(np.float64)
        if mend_noise:
            readings = mend(readings, truth.flawed, format.pattern)
        if exposure == "corrected":
            readings = corrected(readings, ratio, format)
        image, share = _to_16_bits(readings, format)
        already = np.mean(np.logical_or(*clipped(pixels, format)))
        cut += max(0.0, share - float(already))
        path = noise_folder / f"{number:04d}.png"
        write_pixels(path, image)
        pairs.append(
            Pair(scene.name, truth_path, path, frame.analog_gain, frame.digital_gain, ratio)
        )
    return ScenePairs(tuple(pairs), left_out, cut / max(1, len(pairs)), unknown)


def _to_16_bits(readings: Float64, format: FrameFormat) -> tuple[NDArray[Any], float]:
    """(uint16 with white at 65535, rounded by floor(x + 0.5); share of samples cut off)."""
    scaled = np.floor(readings * (_FULL_SCALE / format.white_level) + 0.5)
    outside = float(np.mean((scaled < 0.0) | (scaled > _FULL_SCALE)))
    return np.clip(scaled, 0.0, _FULL_SCALE).astype(np.uint16), outside
