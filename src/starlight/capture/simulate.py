"""Capture sessions of a simulated camera, with the truth beside them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tqdm import tqdm

from starlight.bayer import Float64
from starlight.capture.camera import Camera, CameraConfig, blocks
from starlight.capture.session import KINDS, Frame, FrameFormat, Kind, KnownTruth, write_session
from starlight.denoise.images import list_images, read_image
from starlight.images import write_pixels
from starlight.noise.tone import tone_curve

_PLAN_WORD = 0xCA97  # keeps the seeds of plans apart from those of frames


class SimulationSettings(BaseModel):
    """What is captured.

    scenes      photographs taken, the first ones by name
    frames      target frames per scene; dark and noisy: as many each, where None
    analog_gain, digital_gain, lux   of target and dark frames
    drift       light of the target frames swings by at most this share, with mean zero
    flicker     share of the target frames whose light is off by `flicker_size`
    highlights  share of a scene's raw samples that the exposure lets clip; None: white is white
    least_lux, most_lux   light of noisy frames, log-uniform; exposure follows in thirds of a stop
    most_digital_gain     where exposure stops following
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenes: int = Field(default=1, ge=1)
    frames: int = Field(default=200, ge=2)
    dark: int | None = Field(default=None, ge=0)
    noisy: int | None = Field(default=None, ge=0)
    seed: int = Field(default=0, ge=0)
    analog_gain: float = Field(default=1.0, gt=0.0)
    digital_gain: float = Field(default=1.0, ge=1.0)
    lux: float = Field(default=200.0, gt=0.0)
    drift: float = Field(default=0.02, ge=0.0, lt=1.0)
    flicker: float = Field(default=0.0, ge=0.0, le=0.5)
    flicker_size: float = Field(default=0.15, gt=-1.0)
    highlights: float | None = Field(default=0.01, gt=0.0, lt=1.0)
    least_lux: float = Field(default=0.1, gt=0.0)
    most_lux: float = Field(default=100.0, gt=0.0)
    most_digital_gain: float = Field(default=8.0, ge=1.0)

    @model_validator(mode="after")
    def _ordered(self) -> SimulationSettings:
        if self.least_lux > self.most_lux:
            raise ValueError(
                f"simulation: least_lux must not exceed most_lux {self.most_lux:g}, "
                f"got {self.least_lux:g}"
            )
        return self


def simulate_session(
    clean: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: SimulationSettings | None = None,
    config: CameraConfig | None = None,
    progress: bool = False,
) -> Path:
    """Write a session of the photographs of a folder (8-bit RGB) and return its folder.

    The same arguments give the same frames, with the same version of numpy. Raises
    FileNotFoundError or ValueError for a missing folder, too few photographs, a gain outside the
    camera's calibration, or an `out` that holds something.
    """
    settings, camera = settings or SimulationSettings(), Camera(config)
    out = Path(out)
    photographs = list_images(Path(clean))
    if len(photographs) < settings.scenes:
        raise ValueError(
            f"simulation: scenes must be at most the {len(photographs)} photographs of {clean}, "
            f"got {settings.scenes}"
        )
    camera.profile.at_analog_gain(settings.analog_gain)
    names = [path.stem for path in photographs[: settings.scenes]]
    if len(set(names)) < len(names):
        raise ValueError(f"simulation: photographs must differ in name before the dot, got {names}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"simulation: target must be a new or empty folder, got {out}")
    frames: list[Frame] = []
    for index, (name, photograph) in enumerate(zip(names, photographs, strict=False)):
        projected = expose_for_highlights(read_scene(photograph, camera), camera, settings)
        folder = out / name
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        frames += _capture(camera, projected, folder, settings, index, progress)
        known_truth(camera, projected, settings).save(folder)
    write_session(out, frame_format(camera), frames)
    return out


def read_scene(photograph: Path, camera: Camera) -> Float64:
    """A photograph's light on the sensor: decoded by the sRGB curve, then `Camera.project`."""
    linear = tone_curve("srgb").to_linear(read_image(photograph) / 255.0)
    return camera.project(linear)


def expose_for_highlights(
    projected: Float64, camera: Camera, settings: SimulationSettings
) -> Float64:
    """Light scaled so that the stated share of the target frames' samples would clip."""
    if settings.highlights is None:
        return projected
    whole_gain = settings.analog_gain * settings.digital_gain
    exposure = whole_gain * settings.lux / camera.config.full_scale_lux
    brightest = float(np.quantile(projected, 1.0 - settings.highlights)) * exposure
    return projected / brightest if brightest > 0.0 else projected


def frame_format(camera: Camera) -> FrameFormat:
    """How the camera's frames read."""
    config = camera.config
    return FrameFormat(
        pattern=None if config.isp else config.pattern,
        black_level=camera.black,
        white_level=camera.white,
        tone=config.tone if config.isp else None,
    )


def known_truth(camera: Camera, projected: Float64, settings: SimulationSettings) -> KnownTruth:
    """What the target frames of a scene should have shown, and where they cannot."""
    a, b = camera.profile.at_analog_gain(settings.analog_gain)
    black, white = camera.profile.black_level_dn, camera.profile.white_level_dn
    share = settings.lux / camera.config.full_scale_lux
    sound = projected * camera.profile.range_dn * settings.analog_gain * share
    reading = camera.expected(projected, settings.analog_gain, settings.lux)
    kind = camera.sensor(projected.shape).kind
    error = np.clip(reading, 0.0, white) - np.clip(black + sound, 0.0, white)
    amplitude = np.where(kind > 0, error, 0.0)
    deviation = np.sqrt(a * sound + b)
    scale = camera.config.isp_scale
    if scale > 1:  # the worst of the samples that a pixel is made of stands for it
        worst = np.abs(blocks(amplitude, scale)).argmax(2)[..., None]
        kind, amplitude, deviation = (
            np.take_along_axis(blocks(samples, scale), worst, 2)[..., 0]
            for samples in (kind, amplitude, deviation)
        )
    return KnownTruth(
        truth=camera.truth(projected, settings.analog_gain, settings.digital_gain, settings.lux),
        kind=kind,
        amplitude=amplitude,
        deviation=deviation,
    )


def light_drift(count: int, drift: float, rng: np.random.Generator) -> Float64:
    """Relative light of each frame of a burst: a slow swing of mean one, at most `drift` off it."""
    time = np.arange(count) / count
    swing = np.sin(2.0 * np.pi * (rng.uniform(0.7, 2.5) * time + rng.random()))
    swing -= swing.mean()
    return 1.0 + drift * swing / max(float(np.abs(swing).max()), 1e-12)


def automatic_gains(
    lux: float, camera: Camera, settings: SimulationSettings
) -> tuple[float, float]:
    """(analog, digital) gain that shows a light as bright as the target, as far as gains reach.

    The whole gain goes in thirds of a stop; digital gain starts where analog gain ends.
    """
    wanted = settings.analog_gain * settings.digital_gain * settings.lux / lux
    wanted = 2.0 ** (round(3.0 * math.log2(wanted)) / 3.0)
    lowest, highest = camera.profile.gain_range
    analog = min(max(wanted, lowest), highest)
    return analog, min(max(wanted / analog, 1.0), settings.most_digital_gain)


def _capture(
    camera: Camera,
    projected: Float64,
    folder: Path,
    settings: SimulationSettings,
    scene: int,
    progress: bool,
) -> list[Frame]:
    plans = _plans(camera, settings, scene)
    frames = []
    for kind, number, analog, digital, lux, recorded in tqdm(
        plans, desc=folder.name, leave=False, disable=None if progress else True, unit="frame"
    ):
        words = np.random.SeedSequence((settings.seed, scene, KINDS.index(kind), number))
        seed = int(words.generate_state(1, np.uint64)[0])
        pixels: NDArray[Any] = camera.read_out(projected, analog, digital, lux, seed)
        path = folder / kind / f"{number:04d}.png"
        write_pixels(path, pixels)
        frames.append(Frame(path, kind, analog, digital, recorded))
    return frames


def _plans(
    camera: Camera, settings: SimulationSettings, scene: int
) -> list[tuple[Kind, int, float, float, float, float]]:
    """(kind, number, analog gain, digital gain, true lux, recorded lux) of each frame."""
    rng = np.random.default_rng((settings.seed, scene, _PLAN_WORD))
    gains = settings.analog_gain, settings.digital_gain
    count = settings.frames
    plans: list[tuple[Kind, int, float, float, float, float]] = []
    for number in range(count if settings.dark is None else settings.dark):
        plans.append(("dark", number, *gains, 0.0, 0.0))
    light = settings.lux * light_drift(count, settings.drift, rng)
    light[rng.random(count) < settings.flicker] *= 1.0 + settings.flicker_size
    for number in range(count):
        plans.append(("target", number, *gains, float(light[number]), settings.lux))
    for number in range(count if settings.noisy is None else settings.noisy):
        stops = rng.uniform(math.log(settings.least_lux), math.log(settings.most_lux))
        lux = round(math.exp(stops), 4)
        plans.append(("noisy", number, *automatic_gains(lux, camera, settings), lux, lux))
    return plans
