"""Noise conditions: a name, a seed and an image give the same noisy image everywhere.

The arithmetic is float64 in the portable functions of this package, and sample i of an image is
word i of a counter-based generator: threads, batch size, platform and library versions change
nothing. Only numpy's documented guarantee on Philox's raw words is relied upon.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from starlight.noise import sampling
from starlight.noise.portable import Float64
from starlight.noise.profiles import CameraProfile
from starlight.noise.tone import tone_curve

OutputRange = Literal["u8_clipped", "float_unclipped"]
ShotNoise = Literal["poisson", "gaussian"]
OUTPUT_RANGES: tuple[str, ...] = get_args(OutputRange)
NAMED_CONDITIONS = (
    *(f"sigma_{sigma}" for sigma in (5, 10, 15, 25, 30, 50)),
    *(f"iso_{iso}" for iso in (1600, 3200, 6400, 12800, 25600)),
)

# Streams of the generator: one seed gives independent words to each.
_GAUSSIAN_STREAM, _SHOT_STREAM, _SHOT_FRACTION_STREAM = range(3)

# Samples worked on at once, a multiple of 4: it bounds memory and fits the cache; the bits of the
# result do not depend on it.
_BLOCK = 1 << 16


def round_to_u8(pixels: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """floor(x + 0.5), then clipped to 0..255: pixel units to uint8."""
    return np.clip(np.floor(pixels + 0.5), 0.0, 255.0).astype(np.uint8)


class NoiseCondition(ABC):
    """A reproducible degradation of a clean image."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The text that `parse` reads back, when the condition is one that it names."""

    @abstractmethod
    def _noisy(self, pixels: Float64, seed: int, first: int) -> Float64:
        """Samples first, first + 1, ... of a flat image in pixel units 0..255, not clipped."""

    def apply(
        self, image: NDArray[Any], seed: int, output: OutputRange = "u8_clipped"
    ) -> NDArray[Any]:
        """Add this noise to an image or a batch.

        image: [H, W, C] or [N, H, W, C]; uint8, or floating in pixel units 0..255.
        seed: 0 .. 2^64 - 1; image i of a batch gets seed + i, so a batch equals its images.
        output: `u8_clipped` rounds by floor(x + 0.5) and clips to 0..255, uint8; `float_unclipped`
            is float32 in pixel units, beyond 0 and 255 where the noise leads.
        Returns an array of image's shape. Raises TypeError for another dtype, ValueError for
        another shape, a value outside 0..255, or another output.
        """
        if output not in OUTPUT_RANGES:
            raise ValueError(
                f"noise: output must be one of {', '.join(OUTPUT_RANGES)}, got {output!r}"
            )
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise TypeError(f"noise: image must be uint8 or floating, got {image.dtype}")
        if image.ndim not in (3, 4):
            raise ValueError(
                f"noise: image must have shape [H, W, C] or [N, H, W, C], got {list(image.shape)}"
            )
        result = np.empty(image.shape, np.uint8 if output == "u8_clipped" else np.float32)
        if image.ndim == 4:
            for i, one in enumerate(image):
                result[i] = self.apply(one, seed + i, output)
            return result
        if image.size and not (image.min() >= 0 and image.max() <= 255):
            raise ValueError(
                "noise: image must hold values in 0..255, "
                f"got {float(image.min()):g}..{float(image.max()):g}"
            )
        flat, flat_result = image.reshape(-1), result.reshape(-1)
        for first in range(0, flat.size, _BLOCK):
            block = slice(first, first + _BLOCK)
            noisy = self._noisy(flat[block].astype(np.float64), seed, first)
            flat_result[block] = round_to_u8(noisy) if output == "u8_clipped" else noisy
        return result

    @staticmethod
    def parse(name: str, profile: CameraProfile | str = "imx385") -> NoiseCondition:
        """The condition of a name.

        `sigma_25`, `sigma_7.5`: additive Gaussian, sigma in 8-bit units.
        `iso_6400`, `iso_6400_dg2`: the camera of `profile` at that ISO, digital gain 1 or as given.
        Raises ValueError for another name or an ISO outside the profile.
        """
        number = r"(\d+(?:\.\d+)?)"
        if match := re.fullmatch(f"sigma_{number}", name):
            return GaussianNoise(float(match[1]))
        if match := re.fullmatch(f"iso_{number}(?:_dg{number})?", name):
            camera = CameraProfile.load(profile) if isinstance(profile, str) else profile
            gain = camera.gain_of_iso(float(match[1]))
            return CameraNoise(gain, float(match[2] or 1.0), camera, iso=float(match[1]))
        raise ValueError(
            "noise: condition must read sigma_N, iso_N or iso_N_dgD "
            f"(sigma_25, iso_6400, iso_6400_dg2), got {name!r}"
        )


@dataclass(frozen=True)
class GaussianNoise(NoiseCondition):
    """Additive white Gaussian noise of standard deviation `sigma`, in 8-bit pixel units."""

    sigma: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma < float("inf"):
            raise ValueError(f"noise: sigma must be finite and >= 0, got {self.sigma:g}")

    @property
    def name(self) -> str:
        return f"sigma_{self.sigma:g}"

    def _noisy(self, pixels: Float64, seed: int, first: int) -> Float64:
        z = sampling.normal(sampling.uniform(seed, _GAUSSIAN_STREAM, first, pixels.size))
        return pixels + self.sigma * z


@dataclass(frozen=True)
class CameraNoise(NoiseCondition):
    """Poisson-Gaussian noise of a camera, added in linear light.

    The image is decoded by `curve`, read as normalised exposure, turned to DN above black, made
    noisy, multiplied by the digital gain and encoded again (units: see profiles). The image is
    what the camera shows after both gains, so the converter sees 1 / digital_gain of it.
    shot: `poisson` (the calibration's own model: DN = a * Poisson(signal / a) + Normal(0, b)), or
        `gaussian`, one normal of the same variance, without the Poisson's skew in the dark.
    The converter's own rounding, 1/12 DN^2, is part of the calibrated b.
    """

    analog_gain: float
    digital_gain: float = 1.0
    profile: CameraProfile = field(default_factory=lambda: CameraProfile.load("imx385"))
    curve: str = "srgb"
    shot: ShotNoise = "poisson"
    iso: float | None = None  # the setting that asked for analog_gain; only the name uses it

    def __post_init__(self) -> None:
        self.profile.at_analog_gain(self.analog_gain)
        tone_curve(self.curve)
        if not 1.0 <= self.digital_gain < float("inf"):
            raise ValueError(
                f"noise: digital_gain must be finite and >= 1, got {self.digital_gain:g}"
            )
        if self.shot not in get_args(ShotNoise):
            raise ValueError(f"noise: shot must be poisson or gaussian, got {self.shot!r}")

    @property
    def name(self) -> str:
        gain = f"ag{self.analog_gain:g}" if self.iso is None else f"iso_{self.iso:g}"
        return gain if self.digital_gain == 1.0 else f"{gain}_dg{self.digital_gain:g}"

    def _noisy(self, pixels: Float64, seed: int, first: int) -> Float64:
        a, b = self.profile.at_analog_gain(self.analog_gain)
        tone = tone_curve(self.curve)
        to_dn = self.profile.range_dn / self.digital_gain
        signal_dn = tone.to_linear(pixels / 255.0) * to_dn
        gaussian, shot, shot_fraction = (
            sampling.uniform(seed, stream, first, pixels.size)
            for stream in (_GAUSSIAN_STREAM, _SHOT_STREAM, _SHOT_FRACTION_STREAM)
        )
        z = sampling.normal(gaussian)
        if self.shot == "gaussian":
            raw_dn = signal_dn + np.sqrt(a * signal_dn + b) * z
        else:
            raw_dn = a * sampling.poisson(signal_dn / a, shot, shot_fraction) + np.sqrt(b) * z
        return tone.to_encoded(raw_dn / to_dn) * 255.0
