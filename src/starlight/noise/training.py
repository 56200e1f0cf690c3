"""The batched noise sampler of the training loop, in torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from imagecodecs import jpeg8_decode, jpeg8_encode
from torch import Tensor
from torch.nn.functional import conv2d, pad

from starlight.bayer import INTERPOLATION, colours
from starlight.noise.colour import COLOUR_MATRIX, WHITE_BALANCE
from starlight.noise.profiles import CameraProfile
from starlight.noise.tone import TabulatedCurve, ToneCurve, tone_curve

JPEG_QUALITY_MAX = 98
SMOOTH_SIGMA_LIMIT = 4.0  # pixels
LUMA = (0.299, 0.587, 0.114)  # of R'G'B', Rec. 601
FRACTIONS = (
    "gaussian_fraction",
    "u8_fraction",
    "demosaic_fraction",
    "smooth_fraction",
    "jpeg_fraction",
)


@dataclass(frozen=True)
class TrainingNoise:
    """Blind noise for training: each patch draws its own kind and strength.

    gaussian_fraction: probability of additive Gaussian noise, sigma uniform in 0..sigma_max
        (8-bit units); otherwise camera noise, analog gain log-uniform over the profile's range and
        digital gain log-uniform in 1..digital_gain_max.
    u8_fraction: probability that the patch is rounded by floor(x + 0.5) and clipped to 0..255, as
        a chip sees it; otherwise it stays unclipped float.
    demosaic_fraction: probability that camera noise falls on a Bayer mosaic behind colour filters
        and passes bilinear demosaicing, white balance and colour matrix (`noise.colour`), which
        correlate it between neighbours and channels; otherwise samples are independent.
    smooth_fraction: probability that camera noise was smoothed, as a camera's own noise reduction
        leaves it: what it adds to the encoded patch passes a Gaussian of standard deviation
        uniform in 0..smooth_sigma_max pixels, its chrominance one of up to twice that.
    jpeg_fraction: probability that a rounded patch passes JPEG, quality uniform in
        jpeg_quality_min..98, chroma halved below 90.

    Camera noise here is one normal of the calibrated variance (`CameraNoise(shot="gaussian")`): a
    Poisson sampler costs several times the rest, and the read noise of a calibrated sensor covers
    the skew that it would add in the dark.
    """

    gaussian_fraction: float = 0.5
    sigma_max: float = 55.0
    digital_gain_max: float = 2.0
    u8_fraction: float = 0.5
    profile: CameraProfile = field(default_factory=lambda: CameraProfile.load("imx385"))
    curve: str = "srgb"
    demosaic_fraction: float = 0.0
    smooth_fraction: float = 0.0
    smooth_sigma_max: float = 1.0
    jpeg_fraction: float = 0.0
    jpeg_quality_min: int = 60

    def __post_init__(self) -> None:
        for name in FRACTIONS:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"training noise: {name} must lie in 0..1, got {getattr(self, name):g}"
                )
        if not 0.0 <= self.smooth_sigma_max <= SMOOTH_SIGMA_LIMIT:
            raise ValueError(
                f"training noise: smooth_sigma_max must lie in 0..{SMOOTH_SIGMA_LIMIT:g} pixels, "
                f"got {self.smooth_sigma_max:g}"
            )
        if not 0.0 <= self.sigma_max < math.inf:
            raise ValueError(
                f"training noise: sigma_max must be finite and >= 0, got {self.sigma_max:g}"
            )
        if not 1.0 <= self.digital_gain_max < math.inf:
            raise ValueError(
                "training noise: digital_gain_max must be finite and >= 1, "
                f"got {self.digital_gain_max:g}"
            )
        if not 1 <= self.jpeg_quality_min <= JPEG_QUALITY_MAX:
            raise ValueError(
                f"training noise: jpeg_quality_min must lie in 1..{JPEG_QUALITY_MAX}, "
                f"got {self.jpeg_quality_min}"
            )
        tone_curve(self.curve)

    @torch.no_grad()
    def sample(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy batch for a clean one.

        clean: [N, 3, H, W] float32 in pixel units 0..255; generator: on clean's device.
        Returns a new tensor of the same shape, dtype and units.
        """
        batch = clean.shape[0]

        def draw() -> Tensor:
            return torch.rand(batch, generator=generator, device=clean.device)

        gaussian = draw() < self.gaussian_fraction
        as_u8 = draw() < self.u8_fraction
        strength, digital = draw(), draw()
        noise = torch.randn(
            clean.shape, generator=generator, device=clean.device, dtype=clean.dtype
        )
        mosaic = ~gaussian & (draw() < self.demosaic_fraction)
        smooth = ~gaussian & (draw() < self.smooth_fraction)
        luminance, chrominance = draw(), draw()
        as_jpeg, quality = as_u8 & (draw() < self.jpeg_fraction), draw()
        noisy = torch.empty_like(clean)
        plain, camera = gaussian.nonzero()[:, 0], (~gaussian).nonzero()[:, 0]
        if len(plain):
            sigma = self.sigma_max * strength[plain].view(-1, 1, 1, 1)
            noisy[plain] = torch.addcmul(clean[plain], noise[plain], sigma)
        if len(camera):
            noisy[camera] = self._camera(
                clean[camera], noise[camera], strength[camera], digital[camera], mosaic[camera]
            )
        for index in smooth.nonzero()[:, 0].tolist():
            added = smoothed(
                noisy[index] - clean[index],
                self.smooth_sigma_max * float(luminance[index]),
                2.0 * self.smooth_sigma_max * float(chrominance[index]),
            )
            noisy[index] = clean[index] + added
        rounded = as_u8.nonzero()[:, 0]
        if len(rounded):
            noisy[rounded] = (noisy[rounded] + 0.5).floor_().clamp_(0.0, 255.0)
        choices = JPEG_QUALITY_MAX + 1 - self.jpeg_quality_min
        for index in as_jpeg.nonzero()[:, 0].tolist():
            level = self.jpeg_quality_min + int(quality[index] * choices)
            noisy[index] = through_jpeg(noisy[index], level)
        return noisy

    def _camera(
        self, clean: Tensor, noise: Tensor, strength: Tensor, digital: Tensor, mosaic: Tensor
    ) -> Tensor:
        tone = tone_curve(self.curve)
        range_dn = self.profile.range_dn
        a, b = self._interpolate(strength)
        digital_gain = (digital * math.log(self.digital_gain_max)).exp()
        slope = (digital_gain * a / range_dn).view(-1, 1, 1, 1)
        floor = (digital_gain**2 * b / range_dn**2).view(-1, 1, 1, 1)
        linear = _to_linear(tone, clean / 255.0)
        deviation = torch.addcmul(floor, linear.clamp_min(0.0), slope).sqrt_()
        added = noise * deviation
        on_mosaic = mosaic.nonzero()[:, 0]
        if len(on_mosaic):
            added[on_mosaic] = _mosaic_noise(
                linear[on_mosaic], noise[on_mosaic], slope[on_mosaic], floor[on_mosaic]
            )
        return _to_encoded(tone, linear.add_(added)).mul_(255.0)

    def _interpolate(self, strength: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) at gains log-uniform over the table: `CameraProfile.at_analog_gain` in torch."""
        table = torch.tensor(
            [[p.analog_gain, p.a, p.b] for p in self.profile.calibration], device=strength.device
        ).log()
        if len(table) == 1:
            table = table.expand(2, -1)
        gains = table[:, 0].contiguous()
        gain = torch.lerp(gains[0], gains[-1], strength)
        upper = torch.searchsorted(gains, gain).clamp_(1, len(gains) - 1)
        span = (gains[upper] - gains[upper - 1]).clamp_min(torch.finfo(gains.dtype).tiny)
        weight = ((gain - gains[upper - 1]) / span)[:, None]
        a, b = torch.lerp(table[upper - 1, 1:], table[upper, 1:], weight).exp().unbind(1)
        return a, b


def _mosaic_noise(linear: Tensor, noise: Tensor, slope: Tensor, floor: Tensor) -> Tensor:
    """What noise on a mosaic adds to linear sRGB [N, 3, H, W].

    The samples' variance is slope x signal + floor, signal and noise in units of white; one of the
    three normals falls on each site.
    """
    matrix = torch.tensor(COLOUR_MATRIX).to(linear)
    balance = torch.tensor(WHITE_BALANCE).to(linear).view(3, 1, 1)
    seen = torch.from_numpy(colours("RGGB", *linear.shape[2:])).to(linear.device)
    sites = (seen == torch.arange(3, device=linear.device).view(3, 1, 1)).to(linear.dtype)
    signal = torch.einsum("ij,njhw->nihw", matrix.inverse(), linear).clamp_min_(0.0) / balance
    sampled = (signal * slope + floor).sqrt_() * noise * sites
    kernel = torch.tensor(INTERPOLATION).to(linear)[:, None]
    weight = conv2d(sites[None], kernel, padding=1, groups=3)
    interpolated = conv2d(sampled, kernel, padding=1, groups=3) / weight.clamp_min(1e-9)
    return torch.einsum("ij,njhw->nihw", matrix, interpolated * balance)


def smoothed(noise: Tensor, luminance: float, chrominance: float) -> Tensor:
    """[3, H, W], R'G'B', its Y' (Rec. 601) and the rest low-passed by Gaussians of these sigmas.

    sigmas in pixels, 0 leaves a part as it is; beyond the borders the noise is mirrored.
    """
    luma = torch.einsum("c,chw->hw", torch.tensor(LUMA).to(noise), noise)
    return _low_pass(luma[None], luminance) + _low_pass(noise - luma, chrominance)


def _low_pass(planes: Tensor, sigma: float) -> Tensor:
    if sigma == 0.0:
        return planes
    radius = min(math.ceil(3.0 * sigma), min(planes.shape[1:]) - 1)
    taps = torch.arange(-radius, radius + 1).to(planes).div_(sigma).square_().mul_(-0.5).exp_()
    taps /= taps.sum()
    padded = pad(planes[:, None], (radius,) * 4, mode="reflect")
    return conv2d(conv2d(padded, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))[:, 0]


def through_jpeg(image: Tensor, quality: int) -> Tensor:
    """[3, H, W] of whole numbers 0..255, compressed and read back; chroma halved below 90."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).byte().cpu().numpy())
    data = jpeg8_encode(pixels, level=quality, subsampling="444" if quality >= 90 else "420")
    return torch.from_numpy(jpeg8_decode(data)).permute(2, 0, 1).to(image)


def _to_linear(tone: ToneCurve | TabulatedCurve, encoded: Tensor) -> Tensor:
    """The curve's `to_linear` in torch."""
    v = encoded.abs()
    if isinstance(tone, TabulatedCurve):
        return _along(tone.encoded, tone.linear, v).copysign_(encoded)
    curved = ((v + tone.offset) / (1.0 + tone.offset)).pow_(tone.gamma)
    return torch.where(v <= tone.knee, v / tone.slope, curved).copysign_(encoded)


def _to_encoded(tone: ToneCurve | TabulatedCurve, linear: Tensor) -> Tensor:
    """The curve's `to_encoded` in torch."""
    light = linear.abs()
    if isinstance(tone, TabulatedCurve):
        return _along(tone.linear, tone.encoded, light).copysign_(linear)
    curved = light.pow(1.0 / tone.gamma).mul_(1.0 + tone.offset).sub_(tone.offset)
    straight = light <= tone.knee / tone.slope
    return torch.where(straight, light * tone.slope, curved).copysign_(linear)


def _along(xs: tuple[float, ...], ys: tuple[float, ...], values: Tensor) -> Tensor:
    """The line through (xs, ys) at values >= 0."""
    x, y = (torch.tensor(points, dtype=values.dtype, device=values.device) for points in (xs, ys))
    left = torch.bucketize(values.contiguous(), x[1:-1], right=True)
    return y[left] + (y.diff() / x.diff())[left] * (values - x[left])
