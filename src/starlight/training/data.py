"""Patches of clean photographs with noise drawn on the fly, a function of seed and step alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from starlight.denoise.images import list_images, read_image
from starlight.distributed import World
from starlight.evaluation.photographs import training_photographs
from starlight.noise.training import TrainingNoise

IMAGE_OFFSET = 128.0


def to_network(pixels: Tensor) -> Tensor:
    """Pixel units 0..255 -> the network's units, (pixel - 128) / 128."""
    return (pixels - IMAGE_OFFSET) / IMAGE_OFFSET


def to_pixels(values: Tensor) -> Tensor:
    """The network's units -> pixel units, 128 * value + 128."""
    return values * IMAGE_OFFSET + IMAGE_OFFSET


def load_photographs(folders: Sequence[Path]) -> dict[str, npt.NDArray[np.uint8]]:
    """Every image of the folders, path -> uint8 [H, W, 3]; without a folder scikit-image's own.

    Raises FileNotFoundError or ValueError for a missing or empty folder or an unreadable image.
    """
    if not folders:
        return training_photographs()
    return {str(path): read_image(path) for folder in folders for path in list_images(folder)}


@dataclass(frozen=True)
class PatchSampler:
    """Random crops, flips and quarter turns of photographs, made noisy.

    photographs: name -> uint8 [H, W, 3]; each at least `patch` in both directions.
    An image is drawn in proportion to its area. `batch(step)` depends on seed and step alone, so
    training resumes exactly; `part(step)` is what of it this process of `world` trains on.

    Raises ValueError when there is no photograph or one is smaller than a patch.
    """

    photographs: Mapping[str, npt.NDArray[np.uint8]]
    noise: TrainingNoise = field(default_factory=TrainingNoise)
    batch_size: int = 8
    patch: int = 96
    seed: int = 0
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.world.part(self.batch_size)
        if not self.photographs:
            raise ValueError("training data: photographs must be at least one, got none")
        for name, photograph in self.photographs.items():
            if min(photograph.shape[:2]) < self.patch:
                height, width = photograph.shape[:2]
                raise ValueError(
                    f"training data: {name} must be at least {self.patch} x {self.patch} pixels, "
                    f"got {height} x {width}; choose a smaller patch or leave it out"
                )

    def part(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of `batch(step)`."""
        noisy, clean = self.batch(step)
        part = self.world.part(self.batch_size)
        return noisy[part.start : part.stop], clean[part.start : part.stop]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each float32 [batch, 3, patch, patch] in the network's units."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, step))
        images = list(self.photographs.values())
        areas = torch.tensor([float(image.shape[0] * image.shape[1]) for image in images])
        chosen = torch.multinomial(areas, self.batch_size, replacement=True, generator=generator)
        draws = torch.rand(self.batch_size, 3, generator=generator).tolist()
        patches = [
            crop(images[index], self.patch, *draw)
            for index, draw in zip(chosen.tolist(), draws, strict=True)
        ]
        clean = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float()
        return to_network(self.noise.sample(clean, generator)), to_network(clean)


def crop(image: npt.NDArray[Any], size: int, top: float, left: float, turn: float) -> Any:
    """A square of [H, W, C], turned and flipped: three draws of [0, 1) decide where and how."""
    y = int(top * (image.shape[0] - size + 1))
    x = int(left * (image.shape[1] - size + 1))
    patch = image[y : y + size, x : x + size]
    turn_and_flip = int(turn * 8)
    patch = np.rot90(patch, turn_and_flip % 4)
    return patch[:, ::-1] if turn_and_flip >= 4 else patch


def mixed_seed(*words: int) -> int:
    """One 63-bit seed for several numbers, such as (seed, step)."""
    low, high = np.random.SeedSequence(words).generate_state(2).tolist()
    return (low << 31) ^ high
