"""A camera in software: light in, raw mosaics or ISP images out, with every flaw known.

The path of a frame, in this order:

    scene -> optics (blur, flare) -> colour filters -> light and exposure -> photons (Poisson)
          -> read noise, row noise -> analog gain's converter (clip, round) -> digital gain (clip)
          -> raw, or ISP: black level, demosaic, white balance, colour matrix, tone curve, reduction

Noise is that of a calibrated `CameraProfile`: at analog gain g a raw sample of signal s above black
has variance a(g) s + b(g), the converter's rounding included; row noise comes on top. Light and
gain are physical: twice the lux or twice the analog gain doubles the signal, and a(g) is the DN
that one electron makes, so a brighter scene is less noisy at equal output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.ndimage import gaussian_filter

from starlight.bayer import Float64, Pattern, demosaic, mosaic
from starlight.noise.colour import COLOUR_MATRIX, WHITE_BALANCE, Matrix
from starlight.noise.profiles import CameraProfile
from starlight.noise.tone import tone_curve


class DefectRates(BaseModel):
    """Shares of a sensor's pixels with a flaw, and its size.

    hot        dark current: adds A DN (at analog gain 1) and its shot noise, in light and dark
    stuck_low  held at A DN below mid-grey, at black at the lowest, whatever the light; read noise
               stays. Mid-grey is 18 % of the range.
    stuck_high held at A DN above mid-grey, at white at the highest
    dead       held at black
    A is log-uniform from the read noise at analog gain 1 to the full range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hot: float = Field(default=0.0005, ge=0.0, le=0.1)
    stuck_low: float = Field(default=0.0005, ge=0.0, le=0.1)
    stuck_high: float = Field(default=0.0, ge=0.0, le=0.1)
    dead: float = Field(default=0.0, ge=0.0, le=0.1)


class CameraConfig(BaseModel):
    """Everything that makes a simulated camera; frozen, and refused when a value makes no sense.

    profile        noise calibration: a shipped profile's name, or a JSON file
    pattern        Bayer pattern; None: three full planes (no colour filters, no demosaicing)
    isp            False: raw DN, uint16. True: an encoded RGB image of `isp_bits`
    isp_scale      the ISP's image is smaller by this factor per axis: means of encoded squares, as
                   when video is taken from a sensor of more pixels
    full_scale_lux light at which a scene value of 1 reaches white at analog gain 1
    blur_px        standard deviation of the lens's blur, in pixels
    flare          share of the light that the lens spreads evenly over the image
    row_noise      standard deviation of a row's common offset, in units of sqrt(b)
    tone           the ISP's curve, one of `TONE_CURVES`
    defects        rates of flawed pixels; where they lie depends on `sensor_seed` and the size
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = "imx385"
    pattern: Pattern | None = "RGGB"
    isp: bool = False
    isp_bits: int = 8
    isp_scale: int = Field(default=1, ge=1, le=8)
    full_scale_lux: float = Field(default=200.0, gt=0.0)
    blur_px: float = Field(default=0.6, ge=0.0, le=10.0)
    flare: float = Field(default=0.005, ge=0.0, le=0.5)
    row_noise: float = Field(default=0.3, ge=0.0, le=10.0)
    white_balance: tuple[float, float, float] = WHITE_BALANCE
    colour_matrix: Matrix = COLOUR_MATRIX
    tone: str = "srgb"
    defects: DefectRates = DefectRates()
    sensor_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sensible(self) -> CameraConfig:
        if self.isp_bits not in (8, 16):
            raise ValueError(f"camera: isp_bits must be 8 or 16, got {self.isp_bits}")
        if self.isp_scale > 1 and not self.isp:
            raise ValueError(f"camera: isp_scale must be 1 for raw frames, got {self.isp_scale}")
        if not all(1.0 <= gain < math.inf for gain in self.white_balance):
            raise ValueError(f"camera: white_balance must be >= 1, got {self.white_balance}")
        matrix = np.array(self.colour_matrix)
        if matrix.shape != (3, 3) or abs(np.linalg.det(matrix)) < 1e-6:
            raise ValueError(f"camera: colour_matrix must be an invertible 3 x 3, got {matrix}")
        CameraProfile.load(self.profile)
        tone_curve(self.tone)
        return self


@dataclass(frozen=True)
class SensorMap:
    """Flaws of one sensor, arrays of the raw frame's shape.

    kind: uint8, 0 sound, 1 hot, 2 stuck low, 3 stuck high, 4 dead (`DEFECT_KINDS`).
    offset_dn: float64, added signal of hot pixels at analog gain 1.
    held_dn: float64, signal at analog gain 1 that a stuck or dead pixel shows; NaN elsewhere.
    """

    kind: NDArray[np.uint8]
    offset_dn: Float64
    held_dn: Float64


DEFECT_KINDS = ("sound", "hot", "stuck_low", "stuck_high", "dead")
MID_GREY = 0.18


class Camera:
    """A simulated camera. Raises FileNotFoundError or ValueError for a missing or bad profile."""

    def __init__(self, config: CameraConfig | None = None) -> None:
        self.config = config or CameraConfig()
        self.profile = CameraProfile.load(self.config.profile)
        self._tone = tone_curve(self.config.tone)
        self._to_camera = np.linalg.inv(np.array(self.config.colour_matrix))

    def project(self, scene: NDArray[Any]) -> Float64:
        """What the lens throws on the sensor: the scene blurred, with flare, behind the filters.

        scene: [H, W, 3] linear light in sRGB primaries, >= 0, 1 is white. Returns float64 [H, W]
        for a mosaic, [H, W, 3] without a pattern, in units of white. Raises ValueError.
        """
        if scene.ndim != 3 or scene.shape[2] != 3 or 0 in scene.shape:
            raise ValueError(f"camera: scene must have shape [H, W, 3], got {list(scene.shape)}")
        light = scene.astype(np.float64)
        if not (np.isfinite(light).all() and light.min() >= 0.0):
            raise ValueError("camera: scene must hold finite light >= 0, got other values")
        blur, flare = self.config.blur_px, self.config.flare
        if blur > 0.0:
            light = gaussian_filter(light, (blur, blur, 0.0), mode="nearest")
        light = (1.0 - flare) * light + flare * light.mean((0, 1))
        sensed = np.maximum(light @ self._to_camera.T, 0.0) / np.array(self.config.white_balance)
        return sensed if self.config.pattern is None else mosaic(sensed, self.config.pattern)

    def expose(
        self,
        scene: NDArray[Any],
        analog_gain: float = 1.0,
        digital_gain: float = 1.0,
        lux: float = 200.0,
        seed: int = 0,
    ) -> NDArray[Any]:
        """A frame of a scene; scene as for `project`, the rest as for `read_out`."""
        return self.read_out(self.project(scene), analog_gain, digital_gain, lux, seed)

    def read_out(
        self,
        projected: Float64,
        analog_gain: float = 1.0,
        digital_gain: float = 1.0,
        lux: float = 200.0,
        seed: int = 0,
    ) -> NDArray[Any]:
        """A frame of what `project` returned: raw uint16, or the ISP's uint8 or uint16 RGB.

        analog_gain within the profile's calibration; digital_gain >= 1; lux >= 0, 0 is a closed
        lens. The same seed gives the same frame, with the same version of numpy. Raises
        ValueError.
        """
        a, b = self._check(analog_gain, digital_gain, lux)
        sensor = self.sensor(projected.shape)
        rng = np.random.default_rng((seed, 0x5EED))
        signal = projected * self._scale(analog_gain, lux) + sensor.offset_dn * analog_gain
        with np.errstate(invalid="ignore"):
            collected = a * rng.poisson(signal / a)
        collected = np.where(
            np.isnan(sensor.held_dn), collected, np.nan_to_num(sensor.held_dn) * analog_gain
        )
        read = rng.normal(0.0, math.sqrt(max(b - 1.0 / 12.0, 0.0)), projected.shape)
        row_shape = (projected.shape[0], 1, *projected.shape[2:])
        row = rng.normal(0.0, self.config.row_noise * math.sqrt(b), row_shape)
        raw = self._convert(collected + read + row, digital_gain)
        return self._encode(raw) if self.config.isp else raw.astype(np.uint16)

    def truth(
        self,
        projected: Float64,
        analog_gain: float = 1.0,
        digital_gain: float = 1.0,
        lux: float = 200.0,
    ) -> Float64:
        """The frame without noise or flawed pixels, float64, in the units of `read_out`.

        Raw: clipped at white, not rounded. ISP: encoded from that, not rounded.
        """
        self._check(analog_gain, digital_gain, lux)
        signal = projected * self._scale(analog_gain, lux)
        raw = self._convert(signal, digital_gain, rounded=False)
        return self._isp(raw) * self.white if self.config.isp else raw

    def expected(self, projected: Float64, analog_gain: float = 1.0, lux: float = 200.0) -> Float64:
        """Mean raw reading with flawed pixels at digital gain 1, before clipping; float64 DN."""
        sensor = self.sensor(projected.shape)
        signal = projected * self._scale(analog_gain, lux) + sensor.offset_dn * analog_gain
        held = np.nan_to_num(sensor.held_dn) * analog_gain
        return self.profile.black_level_dn + np.where(np.isnan(sensor.held_dn), signal, held)

    @property
    def black(self) -> float:
        """Output level without light."""
        return 0.0 if self.config.isp else self.profile.black_level_dn

    @property
    def white(self) -> float:
        """Output level of white."""
        return (
            float(2**self.config.isp_bits - 1) if self.config.isp else self.profile.white_level_dn
        )

    def sensor(self, shape: tuple[int, ...]) -> SensorMap:
        """The flaws of this camera's sensor at a raw frame's shape; the same at every call."""
        return _sensor_map(self.config, self.profile, shape)

    def _scale(self, analog_gain: float, lux: float) -> float:
        """DN above black per unit of projected light."""
        return self.profile.range_dn * analog_gain * lux / self.config.full_scale_lux

    def _check(self, analog_gain: float, digital_gain: float, lux: float) -> tuple[float, float]:
        if not 1.0 <= digital_gain < math.inf:
            raise ValueError(f"camera: digital_gain must be finite and >= 1, got {digital_gain:g}")
        if not 0.0 <= lux < math.inf:
            raise ValueError(f"camera: lux must be finite and >= 0, got {lux:g}")
        return self.profile.at_analog_gain(analog_gain)

    def _convert(self, signal_dn: Float64, digital_gain: float, rounded: bool = True) -> Float64:
        """Converter and digital gain: DN above black to DN, clipped twice."""
        black, white = self.profile.black_level_dn, self.profile.white_level_dn
        raw = np.clip(signal_dn + black, 0.0, white)
        if rounded:
            raw = np.floor(raw + 0.5)
        if digital_gain != 1.0:
            raw = np.clip(black + digital_gain * (raw - black), 0.0, white)
            if rounded:
                raw = np.floor(raw + 0.5)
        return raw

    def _isp(self, raw: Float64) -> Float64:
        """Raw DN to an encoded image in 0..1, [H, W, 3]."""
        profile, config = self.profile, self.config
        light = (raw - profile.black_level_dn) / profile.range_dn
        if config.pattern is not None:
            light = demosaic(light, config.pattern)
        # White balance makes a clipped highlight coloured; clipping at white again takes it back.
        balanced = np.minimum(light * np.array(config.white_balance), 1.0)
        linear = balanced @ np.array(config.colour_matrix).T
        encoded = self._tone.to_encoded(np.clip(linear, 0.0, 1.0))
        return blocks(encoded, config.isp_scale).mean(2)

    def _encode(self, raw: Float64) -> NDArray[Any]:
        dtype = np.uint8 if self.config.isp_bits == 8 else np.uint16
        return np.floor(self._isp(raw) * self.white + 0.5).astype(dtype)


def blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Squares of an image's pixels: [H, W, ...] to [H / side, W / side, side * side, ...].

    Raises ValueError unless both sides of the image are multiples of it.
    """
    height, width = image.shape[:2]
    if height % side or width % side:
        raise ValueError(
            f"camera: image sides must be multiples of isp_scale {side}, got {height} x {width}"
        )
    rest = image.shape[2:]
    split = image.reshape(height // side, side, width // side, side, *rest).swapaxes(1, 2)
    return split.reshape(height // side, width // side, side * side, *rest)


@lru_cache(maxsize=4)
def _sensor_map(config: CameraConfig, profile: CameraProfile, shape: tuple[int, ...]) -> SensorMap:
    rng = np.random.default_rng((config.sensor_seed, 0xDEFEC7, *shape))
    place, size = rng.random(shape), rng.random(shape)
    kind = np.zeros(shape, np.uint8)
    edge = 0.0
    for number, name in enumerate(DEFECT_KINDS[1:], start=1):
        rate = getattr(config.defects, name)
        kind[(place >= edge) & (place < edge + rate)] = number
        edge += rate
    smallest = math.sqrt(profile.at_analog_gain(profile.gain_range[0])[1])
    amplitude = smallest * (profile.range_dn / smallest) ** size
    grey = MID_GREY * profile.range_dn
    held = np.full(shape, np.nan)
    held[kind == 2] = np.maximum(grey - amplitude[kind == 2], 0.0)
    held[kind == 3] = np.minimum(grey + amplitude[kind == 3], profile.range_dn)
    held[kind == 4] = 0.0
    offset = np.where(kind == 1, amplitude, 0.0)
    for array in (kind, offset, held):
        array.setflags(write=False)
    return SensorMap(kind, offset, held)
