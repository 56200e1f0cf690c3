"""Noise parameters of a camera from the bursts of a session, drift and row noise told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from starlight.capture.alignment import drop_reasons
from starlight.capture.bayer import Float64
from starlight.capture.burst import BurstStatistics, accumulate, survey
from starlight.capture.dead_pixels import Burst, DeadPixels, find_dead_pixels
from starlight.capture.session import Frame, FrameFormat, Scene, Session
from starlight.noise.calibration import NoiseFit, NoisePoints, fit_noise

# Closer to white than so many standard deviations, clipping narrows the variance.
_CLEARANCE = 5.0


@dataclass(frozen=True)
class GainNoise:
    """Noise at one pair of gains: the fit, row noise in DN, and the frames that it rests on."""

    analog_gain: float
    digital_gain: float
    fit: NoiseFit
    row_noise: float
    frames: int


def estimate_noise(session: Session, progress: bool = False) -> list[GainNoise]:
    """Noise parameters of every pair of gains that a session's target frames have.

    Scenes of equal gains are fitted together, dark frames with them. From a pixel's variance over
    the burst the light's drift (its variance times the squared signal) and the rows' common noise
    are taken off. Raises ValueError for encoded (not linear) frames and for what `fit_noise`
    refuses.
    """
    if session.format.tone is not None:
        raise ValueError(
            f"noise estimate: frames must be linear (raw), got tone curve {session.format.tone!r}"
        )

    def gains(scene: Scene) -> tuple[float, float]:
        return scene.target[0].gains

    scenes = sorted((scene for scene in session.scenes if len(scene.target) > 1), key=gains)
    if not scenes:
        raise ValueError("noise estimate: a scene must have two target frames, got none that has")
    return [
        _at_gains(*pair, list(members), session.format, progress)
        for pair, members in groupby(scenes, key=gains)
    ]


def _at_gains(
    analog: float, digital: float, scenes: list[Scene], format: FrameFormat, progress: bool
) -> GainNoise:
    points: list[NoisePoints] = []
    rows: list[float] = []
    frames = 0
    for scene in scenes:
        lit, lit_row, light_variance = _burst(scene.target, format, scene.name, progress)
        dark, dark_row = None, None
        if len(scene.dark) > 1:
            dark, dark_row, _ = _burst(scene.dark, format, f"{scene.name} dark", progress)
        frames += lit.frames + (dark.frames if dark else 0)
        mode: DeadPixels = "both" if dark else "lit_outlier"
        flawed = find_dead_pixels(mode, Burst.of(lit), Burst.of(dark) if dark else None, format)
        # In the dark a row's mean has the least other noise.
        row = lit_row if dark_row is None else dark_row
        rows.append(row)
        for burst, drift in ((lit, light_variance), (dark, 0.0)):
            if burst is None:
                continue
            signal, variance = burst.mean - format.black_level, burst.variance
            clear = signal + _CLEARANCE * np.sqrt(variance) < format.range
            usable = ~flawed & (burst.below + burst.above == 0) & clear
            signal, variance = signal[usable], variance[usable]
            if burst is dark:
                # One signal for all: sorted by the noise of their means, dark pixels would form
                # bins whose signals differ and whose variances do not.
                signal = np.full_like(signal, np.median(signal))
            corrected = variance - drift * signal**2 - row
            points.append(NoisePoints(signal, corrected, np.full(signal.shape, burst.frames - 1.0)))
    try:
        fit = fit_noise(NoisePoints.join(points))
    except ValueError as error:
        raise ValueError(f"gains {analog:g} and {digital:g}: {error}") from None
    return GainNoise(analog, digital, fit, math.sqrt(sum(rows) / len(rows)), frames)


def _burst(
    frames: tuple[Frame, ...], format: FrameFormat, name: str, progress: bool
) -> tuple[BurstStatistics, float, float]:
    """(statistics of the kept frames, variance of rows in DN^2, relative variance of light)."""
    found = survey(frames, format, f"{name} survey", progress)
    lit = float(found.levels.mean()) > 0.0 and frames[0].kind != "dark"
    reasons: list[str | None] = [None] * len(frames)
    if lit:
        reasons = drop_reasons(found.levels, "confidence")
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    if len(kept) < 2:
        raise ValueError(f"scene {name}: kept frames must be at least two, got {len(kept)}")
    statistics = accumulate([frames[index] for index in kept], format, name, progress)
    levels = found.levels[kept]
    pixel_noise = statistics.variance.reshape(len(found.rows[0]), -1)
    level_noise = float(pixel_noise.mean()) / pixel_noise.size
    drift = 0.0
    if lit:
        drift = max(float(levels.var(ddof=1)) - level_noise, 0.0) / float(levels.mean()) ** 2
    row_means: Float64 = found.rows[kept]
    of_pixels = pixel_noise.mean(1) / pixel_noise.shape[1]
    of_light = drift * (row_means.mean(0) - format.black_level) ** 2
    row = float(np.mean(row_means.var(axis=0, ddof=1) - of_pixels - of_light))
    return statistics, max(row, 0.0), drift
