"""TIFF files: rows as they come in and as they go out, with EXIF and colour profile."""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Directories of their own that a tag points at: EXIF, GPS.
DIRECTORIES: Final = (34665, 34853)
# Of the image's own tags, those that tell of the photograph and not of how its pixels are stored.
TOLD: Final = (270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 33432)
_ASCII, _SHORT, _LONG, _RATIONAL = 2, 3, 4, 5
_CLASSIC_LIMIT: Final = 4_000_000_000  # bytes of samples from which offsets need 64 bits
_STRIP_BYTES: Final = 1 << 18
_LEVEL: Final = 6
LARGEST_EXPANSION: Final = 1 << 16  # twice what Zstandard makes of a constant image


class TiffReader:
    """One image of a TIFF file, opened; a context manager.

    shape: [H, W, C], C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. dtype: uint8 or uint16.
    Raises ValueError for several images, palettes, other depths and what else `kind` tells.
    """

    def __init__(self, path: Path) -> None:
        self.complaints = _Complaints()
        with self.complaints.heard():
            self.file = tifffile.TiffFile(path)
            try:
                self._open()
            except BaseException:
                self.file.close()
                raise

    def _open(self) -> None:
        if len(self.file.pages) != 1:
            raise ValueError(f"must hold one image, got {len(self.file.pages)}")
        page = self.page = self.file.pages.first
        photometric = getattr(page.photometric, "name", str(page.photometric))
        extra = [getattr(sample, "name", str(sample)) for sample in page.extrasamples]
        colours = {"MINISBLACK": 1, "RGB": 3, "YCBCR": 3}.get(photometric, 0)
        channels = page.samplesperpixel
        known = colours and channels == colours + len(extra) and len(extra) <= 1
        if not known or page.dtype not in (np.uint8, np.uint16) or page.imagedepth != 1:
            raise ValueError(
                "must be grey or RGB of 8 or 16 bits, alpha or not, "
                f"got {page.dtype} {photometric} with {channels} channels"
            )
        # A damaged height would have the decoder list as many strips as it calls for.
        pieces = math.prod(page.chunked)
        if pieces != len(page.dataoffsets):
            raise ValueError(
                f"{page.imagewidth} x {page.imagelength} pixels must lie in {pieces} strips or "
                f"tiles, got {len(page.dataoffsets)}"
            )
        # And a damaged width strips of any size: no codec makes that much of so few bytes.
        piece = math.prod(page.chunks) * page.dtype.itemsize
        stored = min(max(page.databytecounts, default=0), self.file.filehandle.size)
        if piece > LARGEST_EXPANSION * stored:
            raise ValueError(f"a strip or tile of {piece} bytes must be in the file, got {stored}")
        self.shape = (page.imagelength, page.imagewidth, channels)
        self.dtype = page.dtype
        self.planes = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and channels > 1
        self.premultiplied = extra == ["ASSOCALPHA"]

    def __enter__(self) -> TiffReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def icc_profile(self) -> bytes | None:
        profile = self.page.iccprofile
        return bytes(profile) if profile else None

    def exif(self) -> bytes | None:
        """The tags of `TOLD` and the directories, as TIFF bytes; None where there are none.

        None of a BigTIFF, too: Pillow reads no directories of 64 bits.
        """
        if self.file.is_bigtiff:
            return None
        found, kept = Image.Exif(), Image.Exif()
        with open(self.file.filehandle.path, "rb") as file:
            found.load_from_fp(file)
            for number in TOLD:
                if number in found:
                    kept[number] = found[number]
            for number in DIRECTORIES:
                if directory := dict(found.get_ifd(number)):
                    kept[number] = directory
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None

    def rows(self) -> Iterator[NDArray[Any]]:
        """[rows, W, C] from the top downward, a strip or a row of tiles at a time.

        Planes that lie one after the other are read whole. Raises ValueError for damaged data.
        """
        height, width, channels = self.shape
        with self.complaints.heard():
            if self.planes:
                whole = self.page.asarray()
                self.complaints.check()
                yield np.moveaxis(whole, 0, -1)
                return
            band: NDArray[Any] | None = None
            top = 0
            for data, index, shape in self.page.segments(maxworkers=1):
                self.complaints.check()
                y, x = index[-3], index[-2]
                if band is not None and y != top:
                    yield band
                    band = None
                if band is None:
                    top = y
                    rows = min(self.page.tilelength or self.page.rowsperstrip, height - y)
                    band = np.zeros((rows, width, channels), self.dtype)
                if data is None:
                    raise ValueError(f"no data of rows {y} and after")
                part = data[0, : shape[1], : shape[2]].reshape(*shape[1:3], channels)
                part = part[: height - y, : width - x]
                band[: len(part), x : x + part.shape[1]] = part
            found = 0 if band is None else top + len(band)
            if band is None or found < height:
                raise ValueError(f"rows must be {height}, got {found}")
            yield band
            self.complaints.check()


class _Complaints(logging.Handler):
    """The first error that tifffile logs: it goes on where data is damaged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()

    @contextmanager
    def heard(self) -> Iterator[None]:
        logger = logging.getLogger("tifffile")
        logger.addHandler(self)
        propagated, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = propagated

    def check(self) -> None:
        if self.first:
            raise ValueError(self.first)


def write_tiff(
    path: Path,
    bands: Iterable[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: Any,
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    premultiplied: bool = False,
) -> None:
    """Write rows, [rows, W, C] of uint8 or uint16, from the top downward, deflated; holds one band.

    exif: as of `PIL.Image.Exif.tobytes`; its own directories are kept where the file is below 4 GB.
    """
    height, width, channels = shape
    dtype = np.dtype(dtype)
    large = height * width * channels * dtype.itemsize > _CLASSIC_LIMIT
    tags, directories = ([], {}) if exif is None else _exif_tags(exif)
    if large:
        directories = {}
    rows_per_strip = max(1, min(height, _STRIP_BYTES // (width * channels * dtype.itemsize)))
    resolution = {tag[0]: tag[3] for tag in tags if tag[0] in (282, 283, 296)}
    options: dict[str, Any] = {}
    if len(resolution) == 3:
        options = {
            "resolution": (resolution[282], resolution[283]),
            "resolutionunit": resolution[296],
        }
    if channels in (2, 4):
        options["extrasamples"] = ["assocalpha" if premultiplied else "unassalpha"]
    software = next((tag[3] for tag in tags if tag[0] == 305), False)
    tifffile.imwrite(
        path,
        _strips(bands, rows_per_strip),
        shape=shape if channels > 1 else shape[:2],
        dtype=dtype,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        rowsperstrip=rows_per_strip,
        compression="zlib",
        predictor=True,
        bigtiff=large,
        byteorder="<",
        iccprofile=icc_profile,
        metadata=None,
        software=software,
        maxworkers=1,
        extratags=[tag for tag in tags if tag[0] not in (282, 283, 296, 305)],
        **options,
    )
    if directories:
        _append_directories(path, directories)


def _strips(bands: Iterable[NDArray[Any]], rows: int) -> Iterator[bytes]:
    """Bands of any height as deflated strips of `rows` rows, the last one smaller.

    Predictor 2: each sample less the one to its left (TIFF 6.0, section 14).
    """

    def deflated(strip: NDArray[Any]) -> bytes:
        samples = strip.astype(strip.dtype.newbyteorder("<"), order="C")  # a copy
        samples[:, 1:] -= strip[:, :-1]
        return zlib.compress(samples.tobytes(), _LEVEL)

    rest: NDArray[Any] | None = None
    for band in bands:
        held = band if rest is None else np.concatenate([rest, band])
        whole = len(held) // rows * rows
        for top in range(0, whole, rows):
            yield deflated(held[top : top + rows])
        rest = held[whole:].copy() if whole < len(held) else None
    if rest is not None:
        yield deflated(rest)


def _exif_tags(exif: bytes) -> tuple[list[tuple[Any, ...]], dict[int, dict[int, Any]]]:
    """Tags in tifffile's form, and the directories behind those of `DIRECTORIES`."""
    found = Image.Exif()
    found.load(exif)
    tags: list[tuple[Any, ...]] = []
    for number in TOLD:
        if (value := found.get(number)) is None:
            continue
        if isinstance(value, str):
            tags.append((number, _ASCII, 0, value, True))
        elif number in (282, 283):
            ratio = Fraction(value).limit_denominator(1000).as_integer_ratio()
            tags.append((number, _RATIONAL, 1, ratio, True))
        else:
            tags.append((number, _SHORT, 1, int(value), True))
    directories = {number: dict(found.get_ifd(number)) for number in DIRECTORIES}
    return tags, {number: directory for number, directory in directories.items() if directory}


def _append_directories(path: Path, directories: dict[int, dict[int, Any]]) -> None:
    """Put directories behind the file's end, then a copy of its first one that points at them.

    A classic little-endian file of one image; the values that its entries point at stay in place.
    """
    with path.open("r+b") as file:
        (start,) = struct.unpack_from("<I", file.read(8), 4)
        file.seek(start)
        (count,) = struct.unpack("<H", file.read(2))
        entries = [file.read(12) for _ in range(count)]
        for number, values in directories.items():
            directory = ImageFileDirectory_v2(prefix=b"II")
            for tag, value in values.items():
                directory[tag] = value
            place = _even_end(file)
            file.write(directory.tobytes(place))
            entries.append(struct.pack("<HHII", number, _LONG, 1, place))
        entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
        place = _even_end(file)
        file.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
        file.seek(4)
        file.write(struct.pack("<I", place))


def _even_end(file: BinaryIO) -> int:
    file.seek(0, os.SEEK_END)
    file.write(bytes(file.tell() % 2))
    return file.tell()
