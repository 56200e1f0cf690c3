"""Classical denoisers to stand beside the network, each a callable on a noisy image and a sigma."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from starlight.noise import round_to_u8


def noise_sigma(image: NDArray[Any]) -> float:
    """Blind estimate of the noise deviation of [H, W, 3], uint8 or floating, in the image's unit.

    Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996: the response to the difference of
    two Laplacians, of gain 6 on white noise; here by its median, which edges move little.
    """
    x = image.astype(np.float64)
    rows = x[:-2] - 2.0 * x[1:-1] + x[2:]
    response = rows[:, :-2] - 2.0 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.median(np.abs(response)) / (0.6744897501960817 * 6.0))


def non_local_means(image: NDArray[Any], sigma: float | None = None) -> NDArray[np.uint8]:
    """OpenCV's fastNlMeansDenoisingColored on uint8 [H, W, 3] in RGB.

    Patches of 7 x 7 in a window of 21 x 21; the filter strength h is 0.6 x sigma, near its best on
    photographs at sigma 10 and 25. sigma: in pixel units; none: `noise_sigma`.
    Raises ModuleNotFoundError without OpenCV, TypeError for another dtype than uint8.
    """
    cv2 = require_package("nlm")
    if image.dtype != np.uint8:
        raise TypeError(
            f"peer nlm: image must be uint8 (output range u8_clipped), got {image.dtype}"
        )
    strength = 0.6 * (noise_sigma(image) if sigma is None else sigma)
    bgr = np.ascontiguousarray(image[..., ::-1])
    denoised = cv2.fastNlMeansDenoisingColored(bgr, None, strength, strength, 7, 21)
    return np.ascontiguousarray(denoised[..., ::-1])


def block_matching(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """BM3D in colour by the package `bm3d`, default profile; result in image's shape and dtype.

    Dabov, Foi, Katkovnik, Egiazarian, IEEE Trans. Image Processing 16(8), 2007; Makinen, Azzari,
    Foi, IEEE Trans. Image Processing 29, 2020. The package's licence allows non-commercial use
    alone, so nothing here depends on it.
    image: [H, W, 3] in RGB, uint8, or floating in 0..1 and beyond; sigma: in 8-bit pixel units.
    Raises ModuleNotFoundError without the package.
    """
    bm3d = require_package("bm3d")
    unit = 255.0 if image.dtype == np.uint8 else 1.0
    estimate = np.asarray(bm3d.bm3d_rgb(image.astype(np.float64) / unit, sigma / 255.0))
    return round_to_u8(estimate * 255.0) if image.dtype == np.uint8 else estimate.astype(np.float32)


_PACKAGES = {
    "nlm": ("cv2", "package opencv-python-headless", "pip install 'starlight[peers]'"),
    "bm3d": ("bm3d", "package bm3d", "pip install bm3d, whose licence is for non-commercial use"),
}


def require_package(kind: str) -> Any:
    """The module behind a peer. Raises ModuleNotFoundError with the line that installs it."""
    module, package, remedy = _PACKAGES[kind]
    try:
        return __import__(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"peer {kind}: {package} must be installed, got none: {remedy}"
        ) from None
