"""Classical denoisers to stand beside the network, each a callable on a noisy image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def noise_sigma(image: NDArray[np.uint8]) -> float:
    """Blind estimate of the noise deviation of [H, W, 3] uint8, in pixel units.

    Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996: the response to the difference of
    two Laplacians, of gain 6 on white noise; here by its median, which edges move little.
    """
    x = image.astype(np.float64)
    rows = x[:-2] - 2.0 * x[1:-1] + x[2:]
    response = rows[:, :-2] - 2.0 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.median(np.abs(response)) / (0.6744897501960817 * 6.0))


def non_local_means(image: NDArray[Any]) -> NDArray[np.uint8]:
    """OpenCV's fastNlMeansDenoisingColored on uint8 [H, W, 3] in RGB, told nothing of the noise.

    Patches of 7 x 7 in a window of 21 x 21; the filter strength h is 0.6 x `noise_sigma`,
    near its best on photographs at sigma 10 and 25.
    Raises ModuleNotFoundError without OpenCV, TypeError for another dtype than uint8.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "peer nlm: package opencv-python-headless must be installed, got none: "
            "pip install 'starlight[peers]'"
        ) from None
    if image.dtype != np.uint8:
        raise TypeError(
            f"peer nlm: image must be uint8 (output range u8_clipped), got {image.dtype}"
        )
    strength = 0.6 * noise_sigma(image)
    bgr = np.ascontiguousarray(image[..., ::-1])
    denoised = cv2.fastNlMeansDenoisingColored(bgr, None, strength, strength, 7, 21)
    return np.ascontiguousarray(denoised[..., ::-1])


PEERS = {"nlm": non_local_means}


def find_peer(name: str) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """The peer of that name. Raises ValueError when there is none."""
    if name not in PEERS:
        raise ValueError(f"evaluation: peer must be one of {', '.join(PEERS)}, got {name!r}")
    return PEERS[name]
