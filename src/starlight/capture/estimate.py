"""Noise parameters of a camera from the bursts of a session, drift and row noise told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from starlight.bayer import Float64
from starlight.capture.alignment import drop_reasons
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
        lit = _measure(scene.target, format, scene.name, progress)
        dark = None
        if len(scene.dark) > 1:
            dark = _measure(scene.dark, format, f"{scene.name} dark", progress)
        frames += lit.statistics.frames + (dark.statistics.frames if dark else 0)
        mode: DeadPixels = "both" if dark else "lit_outlier"
        flawed = find_dead_pixels(
            mode, Burst.of(lit.statistics), Burst.of(dark.statistics) if dark else None, format
        )
        drift = _light_variance(lit, flawed, format)
        # In the dark a row's mean has the least other noise.
        row = _row_variance(dark, 0.0, format) if dark else _row_variance(lit, drift, format)
        rows.append(row)
        signal, variance = _clear_pixels(lit.statistics, flawed, format)
        points.append(_points(signal, variance - drift * signal**2 - row, lit))
        if dark:
            signal, variance = _clear_pixels(dark.statistics, flawed, format)
            # One signal for all: sorted by the noise of their means, dark pixels would form bins
            # whose signals differ and whose variances do not.
            points.append(_points(np.full_like(signal, np.median(signal)), variance - row, dark))
    try:
        fit = fit_noise(NoisePoints.join(points))
    except ValueError as error:
        raise ValueError(f"gains {analog:g} and {digital:g}: {error}") from None
    return GainNoise(analog, digital, fit, math.sqrt(sum(rows) / len(rows)), frames)


@dataclass(frozen=True)
class _Measured:
    """Statistics of the kept frames; variance over them of a frame's mean and of each row's."""

    statistics: BurstStatistics
    level_variance: float
    row_variances: Float64


def _measure(
    frames: tuple[Frame, ...], format: FrameFormat, name: str, progress: bool
) -> _Measured:
    found = survey(frames, format, f"{name} survey", progress)
    reasons: list[str | None] = [None] * len(frames)
    if frames[0].kind != "dark":
        reasons = drop_reasons(found.levels, "confidence")
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    if len(kept) < 2:
        raise ValueError(f"scene {name}: kept frames must be at least two, got {len(kept)}")
    return _Measured(
        accumulate([frames[index] for index in kept], format, name, progress),
        float(found.levels[kept].var(ddof=1)),
        found.rows[kept].var(axis=0, ddof=1),
    )


def _clear_pixels(
    statistics: BurstStatistics, flawed: NDArray[np.bool_], format: FrameFormat
) -> tuple[Float64, Float64]:
    """(signal, variance) of the sound pixels that no frame clips or nearly clips."""
    signal, variance = statistics.mean - format.black_level, statistics.variance
    clear = signal + _CLEARANCE * np.sqrt(variance) < format.range
    usable = ~flawed & (statistics.below + statistics.above == 0) & clear
    return signal[usable], variance[usable]


def _points(signal: Float64, variance: Float64, measured: _Measured) -> NoisePoints:
    degrees = np.full(signal.shape, measured.statistics.frames - 1.0)
    return NoisePoints(signal, variance, degrees)


def _light_variance(measured: _Measured, flawed: NDArray[np.bool_], format: FrameFormat) -> float:
    """Relative variance of the light over the frames.

    A frame's mean follows the light by its pixels that are neither clipped nor stuck.
    """
    statistics = measured.statistics
    follows = np.where(flawed, 0.0, statistics.inside / statistics.frames)
    following = float(np.mean(follows * (statistics.mean - format.black_level)))
    of_pixels = float(statistics.variance.mean()) / statistics.variance.size
    if following <= 0.0:
        return 0.0
    return max(measured.level_variance - of_pixels, 0.0) / following**2


def _row_variance(measured: _Measured, drift: float, format: FrameFormat) -> float:
    """Variance that the pixels of a row share, DN^2: that of its mean, less what explains it."""
    height = len(measured.row_variances)
    variance = measured.statistics.variance.reshape(height, -1)
    signal = (measured.statistics.mean - format.black_level).reshape(height, -1)
    of_pixels = variance.mean(1) / variance.shape[1]
    of_light = drift * signal.mean(1) ** 2
    return max(float(np.mean(measured.row_variances - of_pixels - of_light)), 0.0)
