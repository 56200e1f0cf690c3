"""How near generated noise is to real noise, by the measures of the field.

Images are [H, W, C], floating, white = 1; a residual is noise image - truth image. numpy alone.

AKLD, PGap: Yue et al., Dual Adversarial Network, ECCV 2020. The floor of AKLD is not 0: local
variances are estimates from few samples, and two frames of one camera differ too. Give the figure
of a second real frame beside it (`noise_judge` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

Image = NDArray[np.floating[Any]]

# OpenCV's fixed 7-tap Gaussian, which the published figures use (their sigma is left to it).
AKLD_WINDOW = np.array([1.0, 3.5, 7.0, 9.0, 7.0, 3.5, 1.0]) / 32.0
AKLD_VARIANCE_MIN = 1e-10
AKLD_RATIO = (0.1, 10.0)
AKLD_SAMPLES = 50

# One bin for every difference of two 8-bit levels from -127 to 127; the outermost are open.
HISTOGRAM_EDGES = np.concatenate([[-np.inf], (np.arange(-127, 127) + 0.5) / 255.0, [np.inf]])
HISTOGRAM_EPSILON = 1e-8

INTENSITY_BINS = 16
LAGS = ((0, 1), (0, 2), (0, 16), (1, 0), (2, 0), (16, 0), (1, 1))  # rows, columns


def local_variance(residual: Image) -> Image:
    """Weighted mean of the squared residual over 7 x 7 pixels, at least 1e-10; same shape.

    The borders are mirrored without repeating the edge pixel.
    """
    squared = np.square(residual, dtype=np.float64)
    for axis in (0, 1):
        squared = correlate1d(squared, AKLD_WINDOW, axis=axis, mode="mirror")
    return np.maximum(squared, AKLD_VARIANCE_MIN)


def akld(truth: Image, real: Image, generated: Iterable[Image]) -> float:
    """Average Kullback-Leibler divergence between local Gaussians of generated and real noise.

    generated: samples of the noise image for this truth; the literature takes 50. With r the local
    variance of a sample over that of the real image, limited to 0.1..10, it is the mean over
    pixels, channels and samples of (log(1 / r) + r - 1) / 2. Raises ValueError without a sample or
    when shapes differ.
    """
    return local_divergences(truth, real, generated)[0]


def local_divergences(truth: Image, real: Image, generated: Iterable[Image]) -> tuple[float, float]:
    """(AKLD, the same divergence with the mean of the samples' local variances for r).

    The second tells how well a model knows the variance of every place, and nothing else: AKLD
    also charges a model for the scatter of its own local variances, and noise that is correlated
    as the real one scatters more than noise that is not. Arguments and errors as for `akld`.
    """
    wanted = local_variance(_residual("akld", truth, real))
    total, divergences = np.zeros_like(wanted), []
    for sample in generated:
        found = local_variance(_residual("akld", truth, sample))
        total += found
        divergences.append(_divergence(found / wanted))
    if not divergences:
        raise ValueError("akld: generated must hold at least one image, got none")
    return float(np.mean(divergences)), _divergence(total / len(divergences) / wanted)


def _divergence(ratio: Image) -> float:
    ratio = np.clip(ratio, *AKLD_RATIO)
    return 0.5 * float(np.mean(ratio - np.log(ratio) - 1.0))


def histogram(residuals: Iterable[Image]) -> NDArray[np.int64]:
    """Counts of residual values in the bins of `HISTOGRAM_EDGES`, int64 [255]."""
    counts = np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64)
    for residual in residuals:
        counts += np.histogram(residual, HISTOGRAM_EDGES)[0]
    return counts


def histogram_kl(real: NDArray[np.int64], generated: NDArray[np.int64]) -> float:
    """KL(real || generated) in nats between two histograms, sum of p log(p / q).

    p and q are counts over their sum, each at least 1e-8. Raises ValueError for an empty one.
    """
    if not (real.sum() and generated.sum()):
        raise ValueError("histogram KL: histograms must hold samples, got an empty one")
    p, q = (np.maximum(counts / counts.sum(), HISTOGRAM_EPSILON) for counts in (real, generated))
    return float(np.sum(p * np.log(p / q)))


def variance_by_intensity(pairs: Iterable[tuple[Image, Image]]) -> NDArray[np.float64]:
    """Noise variance against truth intensity, over (truth, residual) pairs.

    Returns [C, 16] for 16 equal bins of truth in 0..1, mean squared residual, NaN where a bin has
    fewer than 64 samples.
    """
    totals = counts = np.zeros((0, INTENSITY_BINS))
    for truth, residual in pairs:
        channels = truth.shape[2]
        if not len(totals):
            totals, counts = np.zeros((2, channels, INTENSITY_BINS))
        bins = np.clip((truth * INTENSITY_BINS).astype(np.int64), 0, INTENSITY_BINS - 1)
        for c in range(channels):
            index, square = bins[..., c].ravel(), np.square(residual[..., c]).ravel()
            totals[c] += np.bincount(index, square, INTENSITY_BINS)
            counts[c] += np.bincount(index, minlength=INTENSITY_BINS)
    if not len(totals):
        raise ValueError("variance by intensity: pairs must be at least one, got none")
    return np.where(counts >= 64, totals / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True)
class Correlation:
    """Correlation coefficients of a residual with its shifted self and between its channels.

    spatial: per lag (rows, columns) of `LAGS`, mean over channels; channels: [C, C].
    """

    spatial: tuple[float, ...]
    channels: NDArray[np.float64]


def correlation(residuals: Sequence[Image]) -> Correlation:
    """Mean `Correlation` of residuals, each with every channel's mean taken away.

    Images must be larger than the lags: 17 x 17; smaller ones raise ValueError.
    """
    spatial, channels = [], []
    for residual in residuals:
        height, width = residual.shape[:2]
        if min(height, width) <= 16:
            raise ValueError(
                f"correlation: images must be larger than 16 x 16, got {height} x {width}"
            )
        x = residual - residual.mean((0, 1))
        power = np.maximum(np.square(x).mean((0, 1)), AKLD_VARIANCE_MIN)
        spatial.append(
            [
                float(np.mean((x[dy:, dx:] * x[: height - dy, : width - dx]).mean((0, 1)) / power))
                for dy, dx in LAGS
            ]
        )
        flat = (x / np.sqrt(power)).reshape(-1, x.shape[2])
        channels.append(flat.T @ flat / len(flat))
    if not spatial:
        raise ValueError("correlation: residuals must be at least one, got none")
    return Correlation(tuple(np.mean(spatial, 0).tolist()), np.mean(channels, 0))


def pgap(
    trained_on_real: Callable[[Image], Image],
    trained_on_generated: Callable[[Image], Image],
    pairs: Iterable[tuple[Image, Image]],
) -> float:
    """PSNR gap in dB: what a denoiser loses by training on generated noise; 0 is best.

    Both denoisers have one shape and one budget; pairs are (truth, real noise image) that neither
    has seen. Mean PSNR of the first minus that of the second, results clipped to 0..1.
    """
    gaps = []
    for truth, noisy in pairs:
        errors = [
            float(np.mean(np.square(np.clip(denoise(noisy), 0.0, 1.0) - truth)))
            for denoise in (trained_on_real, trained_on_generated)
        ]
        gaps.append(10.0 * np.log10(max(errors[1], 1e-12) / max(errors[0], 1e-12)))
    if not gaps:
        raise ValueError("pgap: pairs must be at least one, got none")
    return float(np.mean(gaps))


def _residual(what: str, truth: Image, image: Image) -> Image:
    if truth.ndim != 3 or 0 in truth.shape:
        raise ValueError(f"{what}: truth must have shape [H, W, C], got {list(truth.shape)}")
    if image.shape != truth.shape:
        raise ValueError(
            f"{what}: image must have truth's shape {list(truth.shape)}, got {list(image.shape)}"
        )
    return image - truth
