"""PSNR and SSIM of colour images in pixel units, as the denoising literature states them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

_SSIM_WINDOW = 11


def psnr(reference: NDArray[Any], image: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean squared error).

    reference, image: [H, W, 3], uint8 or floating in pixel units 0..255 (data range 255). The mean
    runs over all pixels and the three channels together, in RGB. Infinite for equal images.
    Raises ValueError when shapes differ or are not [H, W, 3].
    """
    _check("psnr", reference, image, smallest=1)
    if np.array_equal(reference, image):
        return float("inf")
    return float(
        peak_signal_noise_ratio(
            reference.astype(np.float64), image.astype(np.float64), data_range=255.0
        )
    )


def ssim(reference: NDArray[Any], image: NDArray[Any]) -> float:
    """Structural similarity, Wang et al., IEEE Trans. Image Processing 13(4), 2004.

    reference, image: as for `psnr`, at least 11 x 11. Gaussian window of sigma 1.5 and 11 x 11
    pixels, K1 = 0.01, K2 = 0.03, population covariance, data range 255; the mean of the three
    channels' indices. Raises ValueError as `psnr` does, and for a smaller image.
    """
    _check("ssim", reference, image, smallest=_SSIM_WINDOW)
    return float(
        structural_similarity(
            reference.astype(np.float64),
            image.astype(np.float64),
            data_range=255.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _check(what: str, reference: NDArray[Any], image: NDArray[Any], smallest: int) -> None:
    shape = reference.shape
    if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < smallest:
        raise ValueError(
            f"{what}: reference must have shape [H, W, 3] with H, W >= {smallest}, "
            f"got {list(shape)}"
        )
    if image.shape != shape:
        raise ValueError(
            f"{what}: image must have reference's shape {list(shape)}, got {list(image.shape)}"
        )
