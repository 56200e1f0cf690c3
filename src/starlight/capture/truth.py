"""Truth images from bursts: the steps of docs/CAPTURE.md, each Choice a setting.

Detection of flawed pixels uses the statistics of the kept frames; mending comes last. That equals
mending frame by frame, since interpolation and mean commute, and neighbours are already corrected
for clipping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from starlight.bayer import Float64
from starlight.capture.alignment import Alignment, drop_reasons
from starlight.capture.burst import (
    BurstStatistics,
    Survey,
    accumulate,
    clipped_modes,
    survey,
)
from starlight.capture.clipping import Clipping, censored_means
from starlight.capture.dead_pixels import Burst, DeadPixels, find_dead_pixels, mend
from starlight.capture.session import Frame, FrameFormat, Scene
from starlight.capture.stillness import check_still

# Beyond this share of clipped samples the censored fit would only extrapolate.
_MOST_CENSORED = 0.9


class TruthSettings(BaseModel):
    """The Choices of the truth image; defaults follow the source.

    dead_pixels      step 2: `both`, `dark_outlier`, `lit_outlier`, `literal`, `none`
    dead_threshold   threshold 1, in standard deviations of the averaged frames
    alignment        step 3: `both`, `threshold`, `confidence`, `none`
    light_threshold  threshold 2, share of the mean light
    confidence       two-sided probability of the interval
    clipping         step 4: `mode`, `censored`, `none`
    most_shift       largest shift of a camera that stands still, in pixels
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dead_pixels: DeadPixels = "both"
    dead_threshold: float = Field(default=5.0, gt=0.0)
    alignment: Alignment = "both"
    light_threshold: float = Field(default=0.05, gt=0.0)
    confidence: float = Field(default=0.999, gt=0.0, lt=1.0)
    clipping: Clipping = "mode"
    most_shift: float = Field(default=0.5, gt=0.0)


PLAIN_MEAN = TruthSettings(dead_pixels="none", alignment="none", clipping="none")


@dataclass(frozen=True)
class SceneTruth:
    """The truth image of a scene and what was done for it.

    truth: float64 readings, shape of a frame. steps: the image after each step that ran, by name,
    `plain_mean` first. flawed: mended pixels. reasons: of each target frame, None where kept.
    samples_replaced: clipped samples that a mode or fit stands for. noise_left: float64, standard
    deviation of truth, predicted from the kept frames. largest_shift in pixels; unknown_shifts:
    frames too noisy or flat to tell. reference: block means of the first frame.
    """

    truth: Float64
    steps: dict[str, Float64]
    flawed: NDArray[np.bool_]
    reasons: list[str | None]
    levels: Float64
    statistics: BurstStatistics
    samples_replaced: int
    noise_left: Float64
    largest_shift: float
    unknown_shifts: int
    reference: NDArray[np.float32]

    @property
    def kept(self) -> int:
        """Number of target frames in the mean."""
        return sum(reason is None for reason in self.reasons)


def make_truth(
    scene: Scene,
    format: FrameFormat,
    settings: TruthSettings | None = None,
    progress: bool = False,
) -> SceneTruth:
    """The truth image of a scene from its target and dark frames.

    Memory depends on the size of a frame alone. Raises FileNotFoundError or ValueError for a file
    at fault, fewer than two target frames, a camera that moved, or a Choice that does not fit.
    """
    settings = settings or TruthSettings()
    if len(scene.target) < 2:
        raise ValueError(
            f"scene {scene.name}: target frames must be at least two, got {len(scene.target)}"
        )
    found = survey(scene.target, format, f"{scene.name} survey", progress)
    largest, unknown = _check_still(scene, found, settings)
    try:
        reasons = drop_reasons(
            found.levels, settings.alignment, settings.light_threshold, settings.confidence
        )
        kept = [frame for frame, reason in zip(scene.target, reasons, strict=True) if not reason]
        statistics = accumulate(kept, format, f"{scene.name} statistics", progress)
        dark = _dark(scene, format, settings, statistics, progress)
        flawed = find_dead_pixels(
            settings.dead_pixels, Burst.of(statistics), dark, format, settings.dead_threshold
        )
    except ValueError as error:
        raise ValueError(f"scene {scene.name}: {error}") from None
    steps = {"plain_mean": found.mean}
    if settings.dead_pixels != "none":
        steps["dead_pixels"] = mend(found.mean, flawed, format.pattern)
    if settings.alignment != "none":
        steps["alignment"] = mend(statistics.mean, flawed, format.pattern)
    replaced = 0
    if settings.clipping != "none":
        replacing, image = _unclipped(kept, format, settings.clipping, statistics, progress)
        replaced = int((statistics.below + statistics.above)[replacing].sum())
        steps["clipping"] = mend(image, flawed, format.pattern)
    inside = np.maximum(statistics.inside, 1)
    return SceneTruth(
        truth=list(steps.values())[-1],
        steps=steps,
        flawed=flawed,
        reasons=reasons,
        levels=found.levels,
        statistics=statistics,
        samples_replaced=replaced,
        noise_left=np.sqrt(statistics.variance / inside),
        largest_shift=largest,
        unknown_shifts=unknown,
        reference=found.reference,
    )


def _check_still(scene: Scene, found: Survey, settings: TruthSettings) -> tuple[float, int]:
    names = [str(frame.path.relative_to(scene.folder)) for frame in scene.target]
    try:
        return check_still(names, found.shifts, settings.most_shift)
    except ValueError as error:
        raise ValueError(f"scene {scene.name}: {error}") from None


def _dark(
    scene: Scene,
    format: FrameFormat,
    settings: TruthSettings,
    lit: BurstStatistics,
    progress: bool,
) -> Burst | None:
    if not scene.dark or settings.dead_pixels == "none":
        return None
    dark = accumulate(scene.dark, format, f"{scene.name} dark", progress)
    if dark.total.shape != lit.total.shape:
        raise ValueError(
            f"dark frames must have the target's shape {list(lit.total.shape)}, "
            f"got {list(dark.total.shape)}"
        )
    return Burst.of(dark)


def _unclipped(
    kept: list[Frame],
    format: FrameFormat,
    clipping: Clipping,
    statistics: BurstStatistics,
    progress: bool,
) -> tuple[NDArray[np.bool_], Float64]:
    """(pixels with clipped samples replaced, mean with them replaced)."""
    at_clip = statistics.below + statistics.above
    image = statistics.mean
    if clipping == "mode":
        # Where every sample is clipped alike, so is the mode: nothing to read.
        some = (at_clip > 0) & (statistics.inside > 0)
        mode = clipped_modes(kept, format, some, progress)
        total = statistics.inside_total[some] + at_clip[some] * mode
        image[some] = total / statistics.frames
        return some, image
    tells = (at_clip > 0) & (at_clip <= _MOST_CENSORED * statistics.frames)
    tells &= (statistics.inside > 1) & (statistics.variance > 0.0)
    counts, totals, squares, below, above = (
        array[tells].astype(np.float64)
        for array in (
            statistics.inside,
            statistics.inside_total,
            statistics.inside_squares,
            statistics.below,
            statistics.above,
        )
    )
    if counts.size:
        # A reading at the clip stands for all values that would have rounded to it or beyond.
        low, high = format.black_clip + 0.5, format.white_level - 0.5
        fitted = censored_means(counts, totals, squares, below, above, low, high)
        image[tells] = np.clip(fitted, format.black_clip, format.white_level)
    return tells, image
