"""Crops of a pair set, a function of seed, step and place in the batch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from starlight.images import Pixels, read_pixels
from starlight.noise.gan.config import GENERATOR_GRID
from starlight.noise.pairs import Pair, PairSet


@dataclass(frozen=True)
class Crops:
    """A batch: truth and noisy [N, 3, H, W] float32, white = 1; gains [N, 2] (analog, digital)."""

    truth: Tensor
    noisy: Tensor
    gains: Tensor


@dataclass
class PairImages:
    """The decoded images of pairs; kept in memory up to `limit_bytes`, read again beyond.

    Raises ValueError when an image is not RGB, two of a pair differ in size or depth, or depths
    differ between pairs (all are opened once at the start, where `white` is found).
    """

    pairs: Sequence[Pair]
    limit_bytes: int = 4 << 30
    white: int = field(init=False)
    _kept: dict[Path, Pixels] = field(init=False, default_factory=dict)
    _bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("pair images: pairs must be at least one, got none")
        depths = {}
        for pair in self.pairs:
            depths[self.read(pair)[0].dtype] = pair
        if len(depths) > 1:
            raise ValueError(
                "pair images: depth must be one for all pairs, got "
                + " and ".join(f"{dtype} in {pair.truth}" for dtype, pair in depths.items())
            )
        self.white = int(np.iinfo(next(iter(depths))).max)

    def read(self, pair: Pair) -> tuple[Pixels, Pixels]:
        """(truth, noisy) as integers [H, W, 3]."""
        truth, noisy = self._open(pair.truth), self._open(pair.noise)
        for path, image in ((pair.truth, truth), (pair.noise, noisy)):
            if image.ndim != 3:
                raise ValueError(f"noise GAN: {path} must be RGB, got one plane; develop it first")
        if truth.shape != noisy.shape or truth.dtype != noisy.dtype:
            raise ValueError(
                f"noise GAN: {pair.noise} must have the truth's size and depth "
                f"{list(truth.shape)} {truth.dtype}, got {list(noisy.shape)} {noisy.dtype}"
            )
        return truth, noisy

    def _open(self, path: Path) -> Pixels:
        if path in self._kept:
            return self._kept[path]
        pixels = read_pixels(path)
        if self._bytes + pixels.nbytes <= self.limit_bytes:
            self._kept[path] = pixels
            self._bytes += pixels.nbytes
        return pixels

    def __iter__(self) -> Iterator[tuple[tuple[float, float], np.ndarray, np.ndarray]]:
        """((analog gain, digital gain), truth, noisy) with images float32 [H, W, 3], white = 1."""
        for pair in self.pairs:
            truth, noisy = (image.astype(np.float32) / self.white for image in self.read(pair))
            yield (pair.analog_gain, pair.correcting_gain), truth, noisy


@dataclass(frozen=True)
class CropSampler:
    """Random crops of the pairs of a set, every pair equally likely.

    Crops start on multiples of 4 and are not flipped: the phase of a colour mosaic and the
    direction of row noise stay what they are, and the generator's grid can learn both.
    Raises ValueError when an image is smaller than a crop.
    """

    images: PairImages
    crop: int
    seed: int = 0

    def __post_init__(self) -> None:
        for pair in self.images.pairs:
            height, width = self.images.read(pair)[0].shape[:2]
            if min(height, width) < self.crop:
                raise ValueError(
                    f"noise GAN: {pair.truth} must be at least {self.crop} x {self.crop} pixels, "
                    f"got {height} x {width}; choose a smaller crop"
                )

    def batch(self, step: int, places: range) -> Crops:
        """The crops at `places` of the global batch of a step."""
        truths, noisies, gains = [], [], []
        for place in places:
            words = np.random.SeedSequence((self.seed, step, place)).generate_state(3, np.uint64)
            pair = self.images.pairs[int(words[0]) % len(self.images.pairs)]
            truth, noisy = self.images.read(pair)
            top, left = (
                int(word) % ((size - self.crop) // GENERATOR_GRID + 1) * GENERATOR_GRID
                for word, size in zip(words[1:], truth.shape[:2], strict=True)
            )
            window = np.s_[top : top + self.crop, left : left + self.crop]
            truths.append(truth[window])
            noisies.append(noisy[window])
            gains.append((pair.analog_gain, pair.correcting_gain))
        return Crops(self._tensor(truths), self._tensor(noisies), torch.tensor(gains))

    def _tensor(self, windows: list[Pixels]) -> Tensor:
        stacked = np.stack(windows).astype(np.float32) / self.images.white
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def scene_split(pairs: PairSet, held_out: int) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """(training pairs, pairs of the last `held_out` scenes).

    Raises ValueError unless a scene is left for training.
    """
    scenes = list(pairs.scenes.values())
    if not 0 <= held_out < len(scenes):
        raise ValueError(
            f"noise GAN: held-out scenes must be fewer than the {len(scenes)} scenes of "
            f"{pairs.folder}, got {held_out}"
        )
    cut = len(scenes) - held_out
    return sum(scenes[:cut], ()), sum(scenes[cut:], ())
