"""PNG files: their ancillary chunks, and a writer that takes rows as they come."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Colour, scale and EXIF: what says how the samples are meant, and stays true of denoised ones.
KEPT: Final = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"eXIf")
_COLOUR_TYPE: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's number
_LEVEL: Final = 4  # noise-free photographs: 6 is 3 % smaller and half as fast


@dataclass(frozen=True)
class PngHeader:
    """kept: (kind, data) of the chunks of `KEPT`; keyed: whether one colour is transparent."""

    depth: int
    colour: int
    interlaced: bool
    keyed: bool
    animated: bool
    kept: tuple[tuple[bytes, bytes], ...] = field(repr=False)


def read_header(data: bytes) -> PngHeader:
    """Walk the chunks of a whole PNG file; raises ValueError for a damaged one."""
    view = memoryview(data)
    if bytes(view[:8]) != SIGNATURE:
        raise ValueError("no PNG data")
    found: dict[bytes, bytes] = {}
    kinds: set[bytes] = set()
    at = 8
    while b"IEND" not in kinds:
        if at + 12 > len(view):
            raise ValueError("file is truncated")
        length, kind = struct.unpack_from(">I4s", view, at)
        if at + 12 + length > len(view):
            raise ValueError("file is truncated")
        kinds.add(kind)
        if kind in KEPT or kind == b"IHDR":
            (expected,) = struct.unpack_from(">I", view, at + 8 + length)
            if zlib.crc32(view[at + 4 : at + 8 + length]) != expected:
                raise ValueError(f"chunk {kind.decode('latin1')} has a wrong CRC")
            found[kind] = bytes(view[at + 8 : at + 8 + length])
        at += 12 + length
    if len(found.get(b"IHDR", b"")) != 13 or b"IDAT" not in kinds:
        raise ValueError("no header or no pixels")
    _, _, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", found[b"IHDR"])
    kept = tuple((kind, found[kind]) for kind in KEPT if kind in found)
    return PngHeader(depth, colour, interlace != 0, b"tRNS" in kinds, b"acTL" in kinds, kept)


def icc_chunk(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)


def icc_profile(header: PngHeader) -> bytes | None:
    """The profile of iCCP, None where there is none; raises ValueError for a damaged one."""
    chunk = dict(header.kept).get(b"iCCP")
    if chunk is None:
        return None
    try:
        return zlib.decompress(chunk[chunk.index(b"\0") + 2 :])
    except zlib.error as error:
        raise ValueError(f"colour profile: {error}") from None


def write_png(
    path: Path,
    bands: Iterable[NDArray[np.unsignedinteger]],
    shape: tuple[int, int, int],
    depth: int,
    chunks: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Write rows, [rows, W, C] of uint8 or uint16, from the top downward; holds one band.

    shape: [H, W, C], C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. chunks: ancillary ones
    that stand before the pixels.
    """
    height, width, channels = shape
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPE[channels], 0, 0, 0)
    pixel_bytes = channels * depth // 8
    above = np.zeros((1, width * pixel_bytes), np.uint8)
    compressor = zlib.compressobj(_LEVEL)
    with path.open("wb") as file:
        file.write(SIGNATURE)
        _chunk(file, b"IHDR", header)
        for kind, data in chunks:
            _chunk(file, kind, data)
        for band in bands:
            # 32 rows at a time: the filters hold five copies.
            for top in range(0, len(band), 32):
                samples = np.ascontiguousarray(band[top : top + 32])
                rows = samples.astype(f">u{depth // 8}", copy=False).view(np.uint8)
                rows = rows.reshape(len(samples), -1)
                _pixels(file, compressor.compress(_filtered(rows, above, pixel_bytes)))
                above = rows[-1:].copy()
        _pixels(file, compressor.flush())
        _chunk(file, b"IEND", b"")


def _pixels(file: BinaryIO, data: bytes) -> None:
    if data:
        _chunk(file, b"IDAT", data)


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> bytes:
    """Each row by the filter of the smallest differences, its number first (PNG 9.2, 12.7)."""
    up = np.concatenate([above, rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    corner[:, pixel_bytes:] = up[:, :-pixel_bytes]
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    candidates = np.stack([rows - left, rows - up, rows - paeth])
    cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0)
    numbers = np.array([1, 2, 4], np.uint8)[best]
    chosen = candidates[best, np.arange(len(rows))]
    return np.concatenate([numbers[:, None], chosen], axis=1).tobytes()
