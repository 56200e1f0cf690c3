"""A fitted generator: noise images for truth images of any size, and whole pair sets of them."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from starlight.files import write_atomically
from starlight.images import Pixels, write_pixels
from starlight.noise.baseline import Image, VarianceModel
from starlight.noise.gan.condition import Units, planes
from starlight.noise.gan.config import GENERATOR_GRID, GanConfig
from starlight.noise.gan.networks import Generator
from starlight.noise.pairs import Pair, write_pairs

METADATA_KEY = "starlight.noise_generator"

# The reach of an output sample, rounded up to the grid: 7 convolutions at full resolution, 6 at
# half with two upsamplings, 8 at a quarter: 7 + 2 * 7 + 4 * 9 = 57.
HALO = 64
TILE = 512


class NoiseGenerator:
    """A generator with what it needs to be used: its units, and the gains it was fitted on.

    gains: (analog, digital) of every training pair, so that drawing one follows their frequency.
    baseline: the Poisson-Gaussian model of the same pairs, to be compared with.
    """

    def __init__(
        self,
        network: nn.Module,
        config: GanConfig,
        units: Units,
        baseline: VarianceModel,
        gains: Sequence[tuple[float, float]],
    ) -> None:
        self.network = network.eval()
        self.config = config
        self.units = units
        self.baseline = baseline
        self.gains = [(float(analog), float(digital)) for analog, digital in gains]

    @torch.inference_mode()
    def generate(
        self, truth: Pixels, analog_gain: float, digital_gain: float = 1.0, seed: int = 0
    ) -> Pixels:
        """A noise image for a truth image.

        truth: [H, W, 3] of the depth that the generator was fitted on (uint8 or uint16), any size.
        Returns the same shape and dtype. The same seed gives the same image on the same machine and
        threads; large images run in tiles, whose seams cannot be told: each sees all its reach.
        Raises TypeError for another depth, ValueError for another shape or a gain that is not > 0.
        """
        wanted = np.uint8 if self.units.white == 255 else np.uint16
        if truth.dtype != wanted:
            raise TypeError(
                f"noise generator: truth must be {np.dtype(wanted)} as the pairs it was fitted on, "
                f"got {truth.dtype}"
            )
        if truth.ndim != 3 or truth.shape[2] != 3 or 0 in truth.shape:
            raise ValueError(
                f"noise generator: truth must have shape [H, W, 3], got {list(truth.shape)}"
            )
        gains = torch.tensor([[analog_gain, digital_gain]], dtype=torch.float32)
        if not (torch.isfinite(gains).all() and (gains > 0).all()):
            raise ValueError(
                "noise generator: gains must be positive and finite, "
                f"got {analog_gain:g} and {digital_gain:g}"
            )
        height, width = truth.shape[:2]
        clean = torch.from_numpy(truth.astype(np.float32) / self.units.white)
        clean = clean.permute(2, 0, 1)[None]
        pad = [0, -width % GENERATOR_GRID, 0, -height % GENERATOR_GRID]
        padded = F.pad(clean, pad, mode="replicate")
        random = torch.Generator().manual_seed(seed)
        noise = torch.randn(padded.shape, generator=random)
        residual = self._tiled(padded, gains, noise)[:, :, :height, :width]
        image = self.units.image(clean, residual, self.units.deviations(clean, gains))
        pixels = torch.floor(image[0].permute(1, 2, 0) * self.units.white + 0.5)
        return pixels.numpy().astype(truth.dtype)

    def image(self, truth: Image, analog_gain: float, digital_gain: float, seed: int) -> Image:
        """`generate` on floating images, white = 1; truth is first rounded to an integer level."""
        dtype = np.uint8 if self.units.white == 255 else np.uint16
        pixels = np.clip(np.floor(truth * self.units.white + 0.5), 0, self.units.white)
        noisy = self.generate(pixels.astype(dtype), analog_gain, digital_gain, seed)
        return noisy.astype(np.float32) / self.units.white

    def _tiled(self, truth: Tensor, gains: Tensor, noise: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        result = torch.empty_like(truth)
        height, width = truth.shape[2:]
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                y0, x0 = max(0, top - HALO), max(0, left - HALO)
                bottom, right = min(height, top + TILE), min(width, left + TILE)
                seen = np.s_[:, :, y0 : min(height, bottom + HALO), x0 : min(width, right + HALO)]
                condition = planes(truth[seen], gains)[:, :5]
                residual = self.network(condition.to(device), noise[seen].to(device)).cpu()
                result[:, :, top:bottom, left:right] = residual[
                    :, :, top - y0 : bottom - y0, left - x0 : right - x0
                ]
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights with all the rest as metadata (safetensors), atomically."""
        description = {
            "config": self.config.model_dump(),
            "white": self.units.white,
            "units": self.units.model.to_json(),
            "baseline": self.baseline.to_json(),
            "gains": self.gains,
        }
        state = {
            name: v.detach().cpu().contiguous() for name, v in self.network.state_dict().items()
        }
        write_atomically(path, save(state, metadata={METADATA_KEY: json.dumps(description)}))

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> NoiseGenerator:
        """The generator of a file, or of a folder that `starlight noise fit` wrote.

        Raises FileNotFoundError when there is none, ValueError when it is damaged or foreign.
        """
        path = Path(source)
        path = path / "generator.safetensors" if path.is_dir() else path
        what = f"noise generator {path}"
        if not path.is_file():
            raise FileNotFoundError(
                f"{what}: file must exist, got none; `starlight noise fit` writes one"
            )
        try:
            with safe_open(path, framework="pt") as file:
                metadata = (file.metadata() or {}).get(METADATA_KEY)
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{what}: file must be complete safetensors, got {error}") from error
        if metadata is None:
            raise ValueError(f"{what}: metadata must hold {METADATA_KEY}, got none")
        try:
            value: dict[str, Any] = json.loads(metadata)
            config = GanConfig.model_validate(value["config"])
            units = Units(VarianceModel.from_json(value["units"]), int(value["white"]))
            baseline = VarianceModel.from_json(value["baseline"])
            gains = [(analog, digital) for analog, digital in value["gains"]]
            network = Generator(config)
            network.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{what}: content must fit together, got {reason}") from None
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise ValueError(f"{what}: weights must be finite, got NaN or infinity")
        return cls(network, config, units, baseline, gains)


def generate_set(
    generator: NoiseGenerator,
    images: Iterable[tuple[str, Pixels]],
    folder: str | os.PathLike[str],
    per_image: int,
    seed: int = 0,
    progress: int | None = None,
) -> list[Pair]:
    """Write a pair set of generated noise: truth/NAME.png, noise/NAME/NNNN.png, pairs.csv.

    images: (name, truth [H, W, 3]); gains are drawn from the recorded ones. What an image gets
    depends on its name and the seed, not on the others. progress: number of images, for a bar.
    Raises ValueError for two equal names or no image.
    """
    folder = Path(folder)
    pairs: list[Pair] = []
    names: set[str] = set()
    steps = tqdm(images, total=progress, disable=None if progress else True, unit="image")
    for name, truth in steps:
        if name in names:
            raise ValueError(f"generate: names must differ, got {name} twice")
        names.add(name)
        truth_path = folder / "truth" / f"{name}.png"
        (folder / "noise" / name).mkdir(parents=True, exist_ok=True)
        truth_path.parent.mkdir(parents=True, exist_ok=True)
        write_pixels(truth_path, truth)
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        for number in range(per_image):
            analog, digital = generator.gains[int(random.integers(len(generator.gains)))]
            noisy = generator.generate(truth, analog, digital, int(random.integers(2**63)))
            noise_path = folder / "noise" / name / f"{number:04d}.png"
            write_pixels(noise_path, noisy)
            pairs.append(Pair(name, truth_path, noise_path, analog, digital, source="generated"))
    if not pairs:
        raise ValueError("generate: images must be at least one, got none")
    write_pairs(folder, pairs)
    return pairs
