"""Training pairs of several sources in one batch: captured, generated, and clean with drawn noise.

Sample i of a step is a function of (seed, step, i) alone: a resumed run sees what it would have
seen, and each of several processes makes its own samples and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from starlight.distributed import World
from starlight.images import Pixels
from starlight.noise.pair_images import PairImages
from starlight.noise.training import TrainingNoise
from starlight.training.data import crop, mixed_seed, to_network

ZOOM_LIMIT = 4.0
CHECK_STEPS = 1 << 40  # batches from this step on are for checks: training does not reach them


class Source(Protocol):
    """Where samples come from; `count` and `smallest` describe it for the log and for checks."""

    @property
    def count(self) -> int: ...

    def check(self, patch: int) -> None:
        """Raise ValueError when an image is smaller than a patch."""
        ...

    def sample(self, patch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each float32 [3, patch, patch] in pixel units 0..255."""
        ...


@dataclass(frozen=True)
class CleanSource:
    """Clean photographs, name -> uint8 [H, W, 3], drawn by area, with noise drawn per sample.

    zoom_max: each patch is enlarged (bicubic) by a factor uniform in 1..zoom_max before noise is
    drawn: pixels as a sensor gives them are softer than those of a photograph that was reduced.
    """

    photographs: Mapping[str, NDArray[np.uint8]]
    noise: TrainingNoise = field(default_factory=TrainingNoise)
    zoom_max: float = 1.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.zoom_max <= ZOOM_LIMIT:
            raise ValueError(
                f"training data: zoom_max must lie in 1..{ZOOM_LIMIT:g}, got {self.zoom_max:g}"
            )

    @property
    def count(self) -> int:
        return len(self.photographs)

    def check(self, patch: int) -> None:
        for name, photograph in self.photographs.items():
            _check_size(name, photograph.shape, patch)

    @cached_property
    def _images(self) -> tuple[list[NDArray[np.uint8]], Tensor]:
        images = list(self.photographs.values())
        return images, _cumulated_areas([image.shape for image in images])

    def sample(self, patch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images, areas = self._images
        image = images[_draw(areas, generator)]
        draws = torch.rand(4, generator=generator).tolist()
        zoom = 1.0 + (self.zoom_max - 1.0) * draws.pop()
        clean = _planes(crop(image, math.ceil(patch / zoom), *draws))[None]
        if clean.shape[2] < patch:
            clean = interpolate(clean, (patch, patch), mode="bicubic").clamp_(0.0, 255.0)
        return self.noise.sample(clean, generator)[0], clean[0]


@dataclass(frozen=True)
class PairSource:
    """Pairs of truth and noise images, drawn by area; both are cut and turned alike."""

    images: PairImages

    @property
    def count(self) -> int:
        return len(self.images.pairs)

    def check(self, patch: int) -> None:
        for pair, shape in zip(self.images.pairs, self.images.shapes, strict=True):
            _check_size(str(pair.noise), shape, patch)

    @cached_property
    def _areas(self) -> Tensor:
        return _cumulated_areas(self.images.shapes)

    def sample(self, patch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        truth, noise = self.images.read(self.images.pairs[_draw(self._areas, generator)])
        draws = torch.rand(3, generator=generator).tolist()
        return _planes(crop(noise, patch, *draws)), _planes(crop(truth, patch, *draws))


@dataclass(frozen=True)
class Mix:
    """Batches in which each sample draws its source by weight.

    Raises ValueError when there is no source, a weight is not positive, an image is smaller than
    a patch, or the processes cannot share the batch evenly.
    """

    sources: Sequence[tuple[Source, float]]  # (source, weight)
    batch_size: int = 8
    patch: int = 96
    seed: int = 0
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.world.part(self.batch_size)
        if not self.sources:
            raise ValueError("training data: sources must be at least one, got none")
        for source, weight in self.sources:
            if not weight > 0:
                raise ValueError(f"training data: weight must be positive, got {weight:g}")
            source.check(self.patch)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(noisy, clean) of the whole world, float32 [batch, 3, patch, patch], network's units."""
        return self._samples(step, range(self.batch_size))

    def part(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of `batch(step)`."""
        return self._samples(step, self.world.part(self.batch_size))

    def check_part(self, index: int) -> tuple[Tensor, Tensor]:
        """This process's share of check batch `index`, of which training draws none."""
        return self.part(CHECK_STEPS + index)

    def _samples(self, step: int, indices: range) -> tuple[Tensor, Tensor]:
        samples = [self._sample(step, index) for index in indices]
        noisy, clean = (torch.stack(images) for images in zip(*samples, strict=True))
        return to_network(noisy), to_network(clean)

    def _sample(self, step: int, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, step, index))
        weights = torch.tensor([weight for _, weight in self.sources])
        source, _ = self.sources[int(torch.multinomial(weights, 1, generator=generator))]
        return source.sample(self.patch, generator)


def _cumulated_areas(shapes: Sequence[tuple[int, ...]]) -> Tensor:
    return torch.tensor([float(shape[0] * shape[1]) for shape in shapes]).double().cumsum(0)


def _draw(cumulated_areas: Tensor, generator: torch.Generator) -> int:
    """An index, with probability in proportion to its area."""
    point = torch.rand(1, generator=generator, dtype=torch.float64) * cumulated_areas[-1]
    index = int(torch.searchsorted(cumulated_areas, point, right=True))
    return min(index, len(cumulated_areas) - 1)


def _planes(pixels: Pixels) -> Tensor:
    """uint8 or uint16 [H, W, 3] -> float32 [3, H, W] in pixel units 0..255."""
    scale = 255.0 / np.iinfo(pixels.dtype).max
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    return torch.from_numpy(planes).mul_(scale)


def _check_size(name: str, shape: tuple[int, ...], patch: int) -> None:
    if min(shape[:2]) < patch:
        raise ValueError(
            f"training data: {name} must be at least {patch} x {patch} pixels, "
            f"got {shape[0]} x {shape[1]}; choose a smaller patch or leave it out"
        )
