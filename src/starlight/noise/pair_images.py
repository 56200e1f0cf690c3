"""The decoded images of pairs, kept in memory up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from starlight.images import Pixels, read_pixels
from starlight.noise.pairs import Pair


@dataclass
class PairImages:
    """Truth and noise images of pairs, RGB of 8 or 16 bits.

    Every file is read once here, so a bad one is known before any work. At most `limit_bytes` of
    pixels are kept, the least recently read make way; what does not fit is read when it is asked
    for. `shapes` has one [H, W, 3] per pair.

    Raises FileNotFoundError or ValueError without a pair, for an unreadable image, one of other
    than three planes, or a pair of unlike images.
    """

    pairs: Sequence[Pair]
    limit_bytes: int = 4 << 30
    shapes: list[tuple[int, ...]] = field(init=False)
    _depths: list[np.dtype] = field(init=False)
    _kept: OrderedDict[Path, Pixels] = field(init=False, default_factory=OrderedDict)
    _bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("pair images: pairs must be at least one, got none")
        truths = [self.read(pair)[0] for pair in self.pairs]
        self.shapes = [truth.shape for truth in truths]
        self._depths = [truth.dtype for truth in truths]

    @cached_property
    def white(self) -> int:
        """The integer that stands for 1. Raises ValueError when depths differ between pairs."""
        examples = dict(zip(self._depths, self.pairs, strict=True))
        if len(examples) > 1:
            raise ValueError(
                "pair images: depth must be one for all pairs, got "
                + " and ".join(f"{dtype} in {pair.truth}" for dtype, pair in examples.items())
            )
        return int(np.iinfo(self._depths[0]).max)

    def read(self, pair: Pair) -> tuple[Pixels, Pixels]:
        """(truth, noise) as integers [H, W, 3]."""
        truth, noise = self._open(pair.truth), self._open(pair.noise)
        for path, image in ((pair.truth, truth), (pair.noise, noise)):
            if image.ndim != 3:
                raise ValueError(
                    f"pair images: {path} must be RGB, got one plane of shape "
                    f"{list(image.shape)}; develop the mosaic first"
                )
        if truth.shape != noise.shape or truth.dtype != noise.dtype:
            raise ValueError(
                f"pair images: {pair.noise} must have the truth's size and depth "
                f"{list(truth.shape)} {truth.dtype}, got {list(noise.shape)} {noise.dtype}"
            )
        return truth, noise

    def _open(self, path: Path) -> Pixels:
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        pixels = read_pixels(path)
        self._kept[path] = pixels
        self._bytes += pixels.nbytes
        while self._bytes > self.limit_bytes and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.nbytes
        return pixels

    def __iter__(self) -> Iterator[tuple[tuple[float, float], np.ndarray, np.ndarray]]:
        """((analog gain, digital gain), truth, noise) with images float32 [H, W, 3], white = 1."""
        for pair in self.pairs:
            truth, noise = (image.astype(np.float32) / self.white for image in self.read(pair))
            yield (pair.analog_gain, pair.correcting_gain), truth, noise
