"""Training pairs of several sources in one batch: captured, generated, and clean with drawn noise.

Sample i of a step is a function of (seed, step, i) alone: a resumed run sees what it would have
seen, and each of several processes makes its own samples and no others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starlight.distributed import World
from starlight.images import Pixels, read_pixels
from starlight.noise.pairs import Pair
from starlight.noise.training import TrainingNoise
from starlight.training.data import crop, mixed_seed, to_network

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
    """Clean photographs, name -> uint8 [H, W, 3], drawn by area, with noise drawn per sample."""

    photographs: Mapping[str, NDArray[np.uint8]]
    noise: TrainingNoise = field(default_factory=TrainingNoise)

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
        piece = crop(image, patch, *torch.rand(3, generator=generator).tolist())
        clean = _planes(piece)[None]
        return self.noise.sample(clean, generator)[0], clean[0]


class PairSource:
    """Pairs of truth and noise images, drawn by area; both are cut and turned alike.

    Every file is read once here, so a bad one is known before training begins. `memory` bytes of
    pixels are kept; what does not fit is read again when it is drawn.

    Raises FileNotFoundError or ValueError for an unreadable image, one of other than three planes,
    or a pair of unlike images.
    """

    def __init__(self, pairs: Sequence[Pair], memory: int = 4 << 30) -> None:
        self.pairs = tuple(pairs)
        self._store = _PixelStore(memory)
        self._shapes = [self._read(pair)[0].shape for pair in self.pairs]
        self._areas = _cumulated_areas(self._shapes)

    @property
    def count(self) -> int:
        return len(self.pairs)

    def check(self, patch: int) -> None:
        for pair, shape in zip(self.pairs, self._shapes, strict=True):
            _check_size(str(pair.noise), shape, patch)

    def sample(self, patch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise, truth = self._read(self.pairs[_draw(self._areas, generator)])
        draws = torch.rand(3, generator=generator).tolist()
        return _planes(crop(noise, patch, *draws)), _planes(crop(truth, patch, *draws))

    def _read(self, pair: Pair) -> tuple[Pixels, Pixels]:
        noise, truth = self._store.read(pair.noise), self._store.read(pair.truth)
        for path, pixels in ((pair.noise, noise), (pair.truth, truth)):
            if pixels.ndim != 3:
                raise ValueError(
                    f"training data: {path} must be RGB, got one plane of shape "
                    f"{list(pixels.shape)}; develop the mosaic first"
                )
        if noise.shape != truth.shape:
            raise ValueError(
                f"training data: {pair.noise} must have the shape of its truth "
                f"{list(truth.shape)}, got {list(noise.shape)}"
            )
        return noise, truth


class _PixelStore:
    """Image files in memory, up to a number of bytes; the least recently read make way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._images: OrderedDict[Path, Pixels] = OrderedDict()

    def read(self, path: Path) -> Pixels:
        if path in self._images:
            self._images.move_to_end(path)
            return self._images[path]
        pixels = read_pixels(path)
        self._images[path] = pixels
        self._held += pixels.nbytes
        while self._held > self._limit and len(self._images) > 1:
            _, gone = self._images.popitem(last=False)
            self._held -= gone.nbytes
        return pixels


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
