"""`Denoiser`: arrays of any size through a denoising network, tile by tile when they are large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starlight.denoise.executors import BundleRunner, Executor, Machine, open_machine
from starlight.denoise.tiles import Side, Tiling, choose_tiling
from starlight.models import DenoisingNetwork
from starlight.noise import round_to_u8

# What passes may take of memory when the caller names nothing, in MB: a float network's whole
# full-HD frame in one pass; an integer network's tiles, whose halo costs little memory.
FLOAT_MEMORY: Final = 1280
BUNDLE_MEMORY: Final = 256
LEAST_MEMORY: Final = 150

# Strength in integers: the step of `--strength`, and of what it subtracts.
STRENGTH_ONE: Final = 1 << 16

_INTEGERS = (np.uint8, np.uint16)
_FLOATS = (np.float16, np.float32, np.float64)
_UNITS = {np.dtype(np.uint8): 1.0, np.dtype(np.uint16): 1 / 257.0}  # in 8-bit steps

Image = TypeVar("Image", NDArray[Any], Tensor)


class Denoiser:
    """A denoising network as a function on images; threads may share one.

    weights: the name of a preset that ships ("edge"), a weights file, a bundle (*.slb), a network,
        or an opened bundle.
    executor: one of `starlight.denoise.executors.EXECUTORS`; None: `engine` for a bundle, for
        others `fused` where it is built and has their Choices, else `reference`.
    tile: side in pixels of the square that one pass of the network produces, rounded up to the
        network's grid; None: tiles within `memory`, cut so that least is computed twice.
    threads: CPU threads for the network; None: as torch, onnxruntime or the engine is set.
    strength: 0..1 scales what is subtracted: image - strength * (image - network(image)); on
        integers pixel - floor((d * S + 2^15) / 2^16), d = pixel - network's,
        S = floor(strength * 2^16 + 1/2).
    memory: megabytes that one pass may take, at least 150; None: 1280, a bundle 256. Less memory
        means smaller tiles, of which the halo is a larger share.

    Tiles read the halo that the network's config asks for. So a tiled image equals the untiled one:
    in integers bit for bit, in floats but for the order of additions (largest difference seen:
    1.4e-6 of full scale in float32, 1.1e-15 in float64). Raises FileNotFoundError or ValueError for
    weights that cannot be read, ImportError for an executor that is not there, TypeError or
    ValueError for the other arguments.
    """

    def __init__(
        self,
        weights: str | Path | DenoisingNetwork | BundleRunner = "edge",
        *,
        executor: str | Executor | None = None,
        tile: int | None = None,
        threads: int | None = None,
        strength: float = 1.0,
        memory: int | None = None,
    ) -> None:
        for name, value, least in (
            ("tile", tile, 1), ("threads", threads, 1), ("memory", memory, LEAST_MEMORY),
        ):  # fmt: skip
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise TypeError(f"denoiser: {name} must be an integer, got {type(value).__name__}")
            if value is not None and value < least:
                raise ValueError(f"denoiser: {name} must be at least {least}, got {value}")
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"denoiser: strength must lie in 0..1, got {strength}")
        chosen = None if executor is None else Executor.named(executor)
        self.machine: Machine = open_machine(weights, chosen, threads)
        self.tile = None if tile is None else -(-tile // self.grid) * self.grid
        self.strength = strength
        self.memory = memory or (BUNDLE_MEMORY if self.machine.integers else FLOAT_MEMORY)

    @property
    def executor(self) -> Executor:
        return self.machine.executor

    @property
    def grid(self) -> int:
        return self.machine.grid

    @property
    def network(self) -> DenoisingNetwork:
        """The float network; raises ValueError for a bundle."""
        if self.machine.network is None:
            raise ValueError("denoiser: network must be a float one, got a bundle's integers")
        return self.machine.network

    def denoise(self, image: Image) -> Image:
        """The denoised image, in image's type, shape and dtype.

        image: numpy [H, W, 3] or [N, H, W, 3], or torch [3, H, W] or [N, 3, H, W] (the result lies
            on its device), in RGB, H and W at least 1; uint8, uint16, or float16, float32 or
            float64 in 0..1, where noise may lead beyond. Images of a batch go one by one.
        Integers come back as floor(x + 0.5) clipped to their range; floats are not clipped. A float
        network computes in its own dtype, float32, whatever the image's; a bundle takes uint8.
        Raises TypeError for another dtype, ValueError for another shape, NaN or infinity.
        """
        if isinstance(image, Tensor):
            channels_last = image.detach().movedim(-3, -1) if image.ndim in (3, 4) else image
            return (
                torch.from_numpy(self._denoise(channels_last.cpu().numpy()))
                .movedim(-1, -3)
                .to(image.device)
            )
        return self._denoise(image)

    def _denoise(self, image: NDArray[Any]) -> NDArray[Any]:
        check_image(image)
        self.check_dtype(image.dtype)
        images = image if image.ndim == 4 else image[None]
        result = np.empty(images.shape, image.dtype)
        for source, target in zip(images, result, strict=True):
            top = 0
            for band in self.bands([source], *source.shape[:2]):
                target[top : top + len(band)] = band
                top += len(band)
        return result if image.ndim == 4 else result[0]

    def check_dtype(self, dtype: Any) -> None:
        """Raise TypeError for a dtype that the executor does not take."""
        if self.machine.integers and dtype != np.uint8:
            raise TypeError(
                f"denoise: image must be uint8 on executor {self.executor.value}, got {dtype}; "
                "round it first (--to-8bit), or use a float executor"
            )

    def bands(
        self, chunks: Iterable[NDArray[Any]], height: int, width: int
    ) -> Iterator[NDArray[Any]]:
        """The denoised rows of one image from its rows, both from the top downward.

        chunks: arrays [rows, width, C] that add up to height, of one dtype as of `denoise`; C: 1
            grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. Yields arrays of the same form, a band
            of tiles each; no more rows are held than a band and its halo need, beside the last
            chunk.
        Grey goes in as three equal channels and comes out as their mean, floor(x + 0.5) in integers
        (floor((2 s + 3) / 6), s the sum, on a bundle). Alpha passes through unchanged.
        Raises ValueError when the chunks do not add up.
        """
        tiling = self.tiling(height, width)
        window = _Window(chunks, height, width, max(tiling.rows.read()))
        for top, bottom in tiling.rows.shares():
            first, last = tiling.rows.with_halo(top, bottom)
            rows = window.rows(first, last)
            band = rows[top - first : bottom - first].copy()
            for left, right in tiling.columns.shares():
                x0, x1 = tiling.columns.with_halo(left, right)
                inner = np.s_[top - first : bottom - first, left - x0 : right - x0]
                self._denoise_tile(rows[:, x0:x1], inner, band[:, left:right])
            yield band
        window.finish()

    def _denoise_tile(
        self, tile: NDArray[Any], inner: tuple[slice, slice], target: NDArray[Any]
    ) -> None:
        """Put the colours of `inner` of the denoised tile [h, w, C], halo included, into target."""
        grey = tile.shape[2] < 3
        colours = tile[..., :1].repeat(3, axis=2) if grey else tile[..., :3]
        if self.machine.integers:
            found = self.machine.run(np.ascontiguousarray(colours))[inner]
            source = colours[inner]
            if self.strength < 1.0:
                scale = int(self.strength * STRENGTH_ONE + 0.5)
                step = (source.astype(np.int32) - found) * scale + STRENGTH_ONE // 2
                found = np.clip(source - step // STRENGTH_ONE, 0, 255).astype(np.uint8)
            if grey:
                found = (found.sum(axis=2, keepdims=True, dtype=np.int32) * 2 + 3) // 6
        else:
            found = self._float_tile(colours, inner)
            if grey:
                found = found.mean(axis=2, keepdims=True)
            if target.dtype == np.uint8:
                found = round_to_u8(found)
            elif target.dtype == np.uint16:
                found = np.floor(np.clip(found * 257.0, 0.0, 65535.0) + 0.5)
            else:
                found = found / 255.0
        target[..., : found.shape[2]] = found

    def _float_tile(self, colours: NDArray[Any], inner: tuple[slice, slice]) -> NDArray[Any]:
        """Floats [h, w, 3] of a tile's inner part in units of 0..255, not rounded."""
        bottom, right = (-side % self.grid for side in colours.shape[:2])
        padded = np.pad(colours, ((0, bottom), (0, right), (0, 0)), mode="edge")
        # Integers keep every bit in float32, which is half the memory.
        exact = np.float32 if colours.dtype in _INTEGERS else np.float64
        pixels: Any = padded.transpose(2, 0, 1).astype(exact, order="C")
        pixels *= _UNITS.get(colours.dtype, 255.0) / 128.0
        pixels -= 1.0
        whole = (slice(None), *inner)
        output = self.machine.run(pixels)[whole]
        if self.strength < 1.0:
            output = pixels[whole] - self.strength * (pixels[whole] - output)
        return output.transpose(1, 2, 0) * 128.0 + 128.0

    def tiling(self, height: int, width: int) -> Tiling:
        """The tiles of an image: squares of the caller's side, or what `memory` allows."""
        halo = self.machine.halo
        if self.tile is not None:
            return Tiling(Side(height, self.tile, halo), Side(width, self.tile, halo))
        budget = self.memory * 1e6 - self.machine.fixed_bytes
        pixels = budget / self.machine.pixel_bytes
        return choose_tiling(height, width, self.grid, halo, pixels)


class _Window:
    """The rows of an image as they come, of which only those still wanted are kept.

    capacity: rows that are asked for at once at the most.
    """

    def __init__(
        self, chunks: Iterable[NDArray[Any]], height: int, width: int, capacity: int
    ) -> None:
        self.chunks = iter(chunks)
        self.height, self.width, self.capacity = height, width, capacity
        self.kept: NDArray[Any] | None = None  # rows self.first .. self.end
        self.first = self.end = 0
        self.rest: NDArray[Any] | None = None  # of the chunk last taken

    def rows(self, first: int, last: int) -> NDArray[Any]:
        """Rows first..last; none before first are asked for again."""
        if self.rest is None and self.kept is None:
            self.rest = self._take()
        if self.kept is None:
            assert self.rest is not None
            if len(self.rest) == self.height:  # the whole image is there: nothing to keep
                return self.rest[first:last]
            shape = (min(self.capacity, self.height), *self.rest.shape[1:])
            self.kept = np.empty(shape, self.rest.dtype)
        wanted = self.end - first
        self.kept[:wanted] = self.kept[first - self.first : self.end - self.first]
        self.first = first
        while self.end < last:
            if self.rest is None or len(self.rest) == 0:
                self.rest = self._take()
            part = self.rest[: last - self.end]
            self.kept[self.end - first : self.end - first + len(part)] = part
            self.end += len(part)
            self.rest = self.rest[len(part) :]
        return self.kept[: last - first]

    def _take(self) -> NDArray[Any]:
        chunk = next(self.chunks, None)
        if chunk is None:
            raise ValueError(f"denoise: rows must be {self.height}, got {self.end}")
        if chunk.shape[1] != self.width:
            raise ValueError(f"denoise: width must be {self.width}, got {chunk.shape[1]}")
        return chunk

    def finish(self) -> None:
        """Take the end of the chunks: their reader checks there that nothing is left."""
        if self.kept is not None and self.rest is not None and len(self.rest):
            raise ValueError(f"denoise: rows must be {self.height}, got more")
        for _ in self.chunks:
            raise ValueError(f"denoise: rows must be {self.height}, got more")


def check_image(image: NDArray[Any]) -> None:
    """Raise TypeError or ValueError unless `Denoiser.denoise` takes the array."""
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"denoise: image must be a numpy array or torch tensor, got {type(image).__name__}"
        )
    if image.dtype not in (*_INTEGERS, *_FLOATS):
        raise TypeError(
            f"denoise: image must be uint8, uint16, float16, float32 or float64, got {image.dtype}"
        )
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape[-3:]:
        raise ValueError(
            "denoise: image must have shape [H, W, 3] or [N, H, W, 3], torch [3, H, W] or "
            "[N, 3, H, W], with H, W >= 1 (RGB, no grey or alpha), "
            f"got {list(image.shape)}"
        )
    if image.dtype not in _INTEGERS and not np.isfinite(image).all():
        raise ValueError("denoise: image must be finite, got NaN or infinity")
