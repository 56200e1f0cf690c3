"""Crops of a pair set, a function of seed, step and place in the batch alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from starlight.images import Pixels
from starlight.noise.gan.config import GENERATOR_GRID
from starlight.noise.pair_images import PairImages
from starlight.noise.pairs import Pair, PairSet


@dataclass(frozen=True)
class Crops:
    """A batch: truth and noisy [N, 3, H, W] float32, white = 1; gains [N, 2] (analog, digital)."""

    truth: Tensor
    noisy: Tensor
    gains: Tensor


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
        for pair, (height, width, _) in zip(self.images.pairs, self.images.shapes, strict=True):
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
