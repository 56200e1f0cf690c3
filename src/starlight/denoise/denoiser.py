"""`Denoiser`: arrays of any size through a denoising network, tile by tile when they are large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starlight.models import DenoisingNetwork
from starlight.models.checkpoint import load_network
from starlight.models.cost import receptive_radius
from starlight.models.padding import crop, pad_to_grid
from starlight.noise import round_to_u8
from starlight.ops import Backend

# Pixels of one pass of the network (halo included) x its width, when the caller names no tile: it
# bounds the activations, about 65 bytes per pixel and unit of width, whatever the image's size.
PASS_VALUES = 1 << 25

_FLOATS = (np.float16, np.float32, np.float64)


class Denoiser:
    """A denoising network as a function on images.

    weights: the name of a preset that ships ("edge"), a weights file, or a network.
    tile: side in pixels of the square that one pass of the network produces, rounded up to the
        network's grid; None: the whole image within `PASS_VALUES` (2 Mpx for `edge`), tiles beyond.
    threads: CPU threads for the network; None: as torch is set.
    backend: of `starlight.ops`, for weights that are read here; None: `fused` where it is built and
        has their Choices.

    Tiles read a halo of at least the network's receptive radius, so a tiled image equals the
    untiled one but for the order of float additions. Raises FileNotFoundError or ValueError for
    weights that cannot be read, TypeError or ValueError for tile or threads.
    """

    def __init__(
        self,
        weights: str | Path | DenoisingNetwork = "edge",
        *,
        tile: int | None = None,
        threads: int | None = None,
        backend: Backend | None = None,
    ) -> None:
        for name, value in (("tile", tile), ("threads", threads)):
            if value is not None and not isinstance(value, int):
                raise TypeError(f"denoiser: {name} must be an integer, got {type(value).__name__}")
            if value is not None and value < 1:
                raise ValueError(f"denoiser: {name} must be at least 1, got {value}")
        if isinstance(weights, DenoisingNetwork):
            self.network = weights
        else:
            self.network = load_network(weights, backend=backend)
        self.grid = self.network.config.grid
        self.halo = _round_up(receptive_radius(self.network.config), self.grid)
        self.tile = None if tile is None else _round_up(tile, self.grid)
        self.threads = threads

    def denoise(self, image: NDArray[Any]) -> NDArray[Any]:
        """The denoised image, in image's shape and dtype.

        image: [H, W, 3] or [N, H, W, 3] in RGB, H and W at least 1; uint8, or float16, float32 or
            float64 in 0..1, where noise may lead beyond. Images of a batch go one by one.
        uint8 comes back as floor(x + 0.5) clipped to 0..255; floats are not clipped. The network
        computes in its own dtype, float32, whatever the image's.
        Raises TypeError for another dtype, ValueError for another shape, NaN or infinity.
        """
        check_image(image)
        images = image if image.ndim == 4 else image[None]
        result = np.empty(images.shape, image.dtype)
        with torch.inference_mode(), _threads(self.threads):
            for source, target in zip(images, result, strict=True):
                target[...] = self._denoise_one(source)
        return result if image.ndim == 4 else result[0]

    def _denoise_one(self, image: NDArray[Any]) -> NDArray[Any]:
        scale = 1.0 if image.dtype == np.uint8 else 255.0
        parameter = next(self.network.parameters())
        # A copy in C order: torch takes no negative strides.
        planes = torch.from_numpy(np.array(image.transpose(2, 0, 1), np.float64, order="C"))
        pixels = planes.mul_(scale).sub_(128.0).div_(128.0).to(parameter)[None]
        padded = pad_to_grid(pixels, self.grid).contiguous(memory_format=torch.channels_last)
        output = crop(self._tiled(padded), *image.shape[:2])
        denoised = output[0].permute(1, 2, 0).double().mul_(128.0).add_(128.0).cpu().numpy()
        return round_to_u8(denoised) if image.dtype == np.uint8 else denoised / scale

    def _tiled(self, padded: Tensor) -> Tensor:
        """The network over [1, 3, H, W] on the grid, in passes of one tile and its halo."""
        height, width = padded.shape[-2:]
        rows, columns = self._tile_size(height, width)
        if rows >= height and columns >= width:
            return self.network(padded)
        output = torch.empty_like(padded)
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                bottom, right = min(top + rows, height), min(left + columns, width)
                y0, x0 = max(top - self.halo, 0), max(left - self.halo, 0)
                y1, x1 = min(bottom + self.halo, height), min(right + self.halo, width)
                tile = self.network(padded[..., y0:y1, x0:x1])
                output[..., top:bottom, left:right] = tile[
                    ..., top - y0 : bottom - y0, left - x0 : right - x0
                ]
        return output

    def _tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a tile: the caller's, or equal shares within `PASS_VALUES`."""
        if self.tile is not None:
            return self.tile, self.tile
        pass_pixels = PASS_VALUES // self.network.config.width
        if height * width <= pass_pixels:
            return height, width
        side = max(math.isqrt(pass_pixels) - 2 * self.halo, self.grid)
        return self._share(height, side), self._share(width, side)

    def _share(self, length: int, most: int) -> int:
        return _round_up(math.ceil(length / math.ceil(length / most)), self.grid)


def check_image(image: NDArray[Any]) -> None:
    """Raise TypeError or ValueError unless `Denoiser.denoise` takes the array."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"denoise: image must be a numpy array, got {type(image).__name__}")
    if image.dtype != np.uint8 and image.dtype not in _FLOATS:
        raise TypeError(
            f"denoise: image must be uint8, float16, float32 or float64, got {image.dtype}"
        )
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape[-3:]:
        raise ValueError(
            "denoise: image must have shape [H, W, 3] or [N, H, W, 3] with H, W >= 1 "
            f"(RGB, no grey or alpha), got {list(image.shape)}"
        )
    if image.dtype != np.uint8 and not np.isfinite(image).all():
        raise ValueError("denoise: image must be finite, got NaN or infinity")


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """torch's CPU threads inside the block, as they were after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
