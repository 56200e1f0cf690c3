"""Noisy photographs through a denoiser, scored image by image."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starlight.denoise.images import list_images, read_image
from starlight.evaluation.metrics import psnr, ssim
from starlight.noise import NoiseCondition, round_to_u8
from starlight.noise.conditions import OutputRange


@dataclass(frozen=True)
class ImageScore:
    """One photograph under one condition; *_noisy are of the input, the others of the result."""

    image: str
    condition: str
    psnr: float
    ssim: float
    psnr_noisy: float
    ssim_noisy: float


def folder_photographs(folder: str | Path) -> dict[str, Path]:
    """File name to path of a folder's images, in order of name.

    Raises FileNotFoundError for a missing folder, ValueError for one without images.
    """
    return {path.name: path for path in list_images(folder)}


def image_seed(image: str, condition: str, seed: int = 0) -> int:
    """The noise seed of one photograph under one condition: CRC-32 of `seed/condition/image`.

    It depends on names alone, so a subset, another order or another machine sees the same noise.
    """
    return zlib.crc32(f"{seed}/{condition}/{image}".encode())


def noisy_input(
    clean: NDArray[np.uint8],
    image: str,
    condition: NoiseCondition,
    output: OutputRange = "u8_clipped",
    seed: int = 0,
) -> NDArray[Any]:
    """What a denoiser is given of a clean photograph [H, W, 3] of that name.

    uint8 for output `u8_clipped`, float32 in 0..1 and beyond for `float_unclipped`.
    """
    noisy = condition.apply(clean, image_seed(image, condition.name, seed), output)
    return noisy if output == "u8_clipped" else noisy / np.float32(255.0)


def scored(image: NDArray[Any], rounded: bool = True) -> NDArray[Any]:
    """The pixels that metrics see: uint8 as it is, floats in 0..1 in pixel units.

    rounded: floats by floor(x + 0.5) and clipped to 0..255, as a display would show them, else not.
    """
    if image.dtype == np.uint8:
        return image
    pixels = image * np.float32(255.0)
    return round_to_u8(pixels) if rounded else pixels


def evaluate(
    denoise: Callable[[NDArray[Any]], NDArray[Any]],
    photographs: Mapping[str, NDArray[np.uint8] | Path],
    conditions: Sequence[NoiseCondition],
    output: OutputRange = "u8_clipped",
    seed: int = 0,
    progress: bool = False,
) -> list[ImageScore]:
    """Score a denoiser over photographs and conditions; `suite_run.run_suite` is for many of each.

    denoise: takes the noisy image [H, W, 3] of `noisy_input` and returns its estimate in the same
        shape, dtype and unit.
    photographs: name to clean uint8 [H, W, 3], or to a file that is read when its turn comes.
    Estimate and noisy input are scored as `scored` has them, rounded.
    Returns one score per condition and photograph, conditions outermost.
    """
    scores = []
    steps = tqdm(
        [(condition, name) for condition in conditions for name in photographs],
        disable=None if progress else True,
        unit="image",
    )
    for condition, name in steps:
        source = photographs[name]
        clean = read_image(source) if isinstance(source, Path) else source
        noisy = noisy_input(clean, name, condition, output, seed)
        noisy_u8, estimate = scored(noisy), scored(denoise(noisy))
        scores.append(
            ImageScore(
                image=name,
                condition=condition.name,
                psnr=psnr(clean, estimate),
                ssim=ssim(clean, estimate),
                psnr_noisy=psnr(clean, noisy_u8),
                ssim_noisy=ssim(clean, noisy_u8),
            )
        )
    return scores


def mean_scores(scores: Sequence[ImageScore]) -> dict[str, dict[str, float]]:
    """Condition to the arithmetic means of its images' figures (for PSNR: of the dB values)."""
    columns = ("psnr", "ssim", "psnr_noisy", "ssim_noisy")
    grouped: dict[str, list[ImageScore]] = {}
    for score in scores:
        grouped.setdefault(score.condition, []).append(score)
    return {
        condition: {
            column: sum(getattr(score, column) for score in members) / len(members)
            for column in columns
        }
        for condition, members in grouped.items()
    }
