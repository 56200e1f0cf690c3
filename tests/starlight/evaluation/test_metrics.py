"""PSNR and SSIM against their definitions."""

import math
from typing import Any

import numpy as np
import pytest

from starlight.evaluation import psnr, ssim

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (24, 17, 3), dtype=np.uint8)
NOISY = np.clip(CLEAN + RNG.normal(0, 20, CLEAN.shape), 0, 255).astype(np.uint8)


def test_psnr_of_an_error_of_one_grey_level() -> None:
    assert psnr(np.full((5, 7, 3), 10, np.uint8), np.full((5, 7, 3), 11, np.uint8)) == (
        pytest.approx(20 * math.log10(255), rel=1e-15)
    )


def test_psnr_takes_the_error_over_all_channels_together() -> None:
    error = (CLEAN.astype(float) - NOISY) ** 2
    assert psnr(CLEAN, NOISY) == pytest.approx(10 * math.log10(255**2 / error.mean()), rel=1e-12)
    assert psnr(CLEAN, NOISY) == psnr(CLEAN.astype(np.float32), NOISY.astype(np.float64))


def test_equal_images_are_infinitely_close() -> None:
    assert psnr(CLEAN, CLEAN) == math.inf
    assert ssim(CLEAN, CLEAN) == pytest.approx(1.0, abs=1e-12)


def test_ssim_is_the_published_formula() -> None:
    """Wang et al. 2004, equation 13, over every 11 x 11 window that lies inside the image."""
    ramp = np.arange(-5, 6) ** 2 / (2 * 1.5**2)
    weights = np.exp(-(ramp[:, None] + ramp[None, :]))
    weights /= weights.sum()

    def local_mean(values: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(values, (11, 11), axis=(0, 1))
        return np.einsum("hwcij,ij->hwc", windows, weights)

    x, y = CLEAN.astype(float), NOISY.astype(float)
    mx, my = local_mean(x), local_mean(y)
    vx, vy = local_mean(x * x) - mx**2, local_mean(y * y) - my**2
    covariance = local_mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(CLEAN, NOISY) == pytest.approx(index.mean(), rel=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("reference", "image", "rule"),
    [
        (CLEAN[..., 0], NOISY[..., 0], r"reference must have shape \[H, W, 3\]"),
        (CLEAN, NOISY[:-1], r"image must have reference's shape \[24, 17, 3\], got \[23, 17, 3\]"),
    ],
)
def test_other_shapes_are_refused(metric: Any, reference: Any, image: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        metric(reference, image)


def test_ssim_wants_a_whole_window() -> None:
    with pytest.raises(ValueError, match="H, W >= 11"):
        ssim(CLEAN[:10], NOISY[:10])
