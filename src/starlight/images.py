"""Image files of 8 or 16 bits, colour or one plane (grey, Bayer mosaic): read strictly, bit by bit.

The files of a camera: PNG and TIFF. What users denoise (8-bit colour with its metadata, JPEG and
WebP too) is read by `starlight.denoise.images`.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from starlight.files import write_atomically

Pixels = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
CAMERA_SUFFIXES = (".png", ".tif", ".tiff")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_TIFF_PLAIN = {"MINISBLACK", "RGB", "CFA"}


def read_pixels(path: str | os.PathLike[str]) -> Pixels:
    """Pixels of a PNG or TIFF file: uint8 or uint16, [H, W] for one plane, [H, W, 3] for RGB.

    Nothing is converted: samples are the file's own integers. Raises FileNotFoundError, or
    ValueError for another ending, a damaged file, palette, alpha, other depths, several images.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"image: path must be an existing file, got {path}")
    data = path.read_bytes()
    try:
        if path.suffix.lower() == ".png":
            kind, pixels = _read_png(data)
        else:
            kind, pixels = _read_tiff(data)
    except Exception as error:  # the decoders raise what they please on damaged data
        reason = str(error) or type(error).__name__
        raise ValueError(f"image: {path} must be an intact image file, got {reason}") from None
    if pixels is None:
        raise ValueError(
            f"image: {path} must be one image of 8 or 16 bits, RGB or one plane, got {kind}"
        )
    return pixels


def write_pixels(path: str | os.PathLike[str], pixels: Pixels) -> None:
    """Write uint8 or uint16 pixels, [H, W] or [H, W, 3], as PNG or TIFF, atomically.

    Raises TypeError for another dtype, ValueError for another shape or ending.
    """
    path = Path(path)
    _check_suffix(path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"image: pixels must be uint8 or uint16, got {pixels.dtype}")
    if pixels.size == 0 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(
            f"image: pixels must have shape [H, W] or [H, W, 3], got {list(pixels.shape)}"
        )
    pixels = np.ascontiguousarray(pixels)
    if path.suffix.lower() == ".png":
        data = bytes(imagecodecs.png_encode(pixels, level=1))  # noise does not compress any better
    else:
        stream = io.BytesIO()
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(stream, pixels, photometric=photometric, metadata=None)
        data = stream.getvalue()
    write_atomically(path, data)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in CAMERA_SUFFIXES:
        raise ValueError(
            f"image: name must end in one of {' '.join(CAMERA_SUFFIXES)}, got {path.name!r}"
        )


def _read_png(data: bytes) -> tuple[str, Pixels | None]:
    """(what the header says, pixels or None for what `read_pixels` does not take)."""
    if data[:8] != _PNG_SIGNATURE or len(data) < 33:
        raise ValueError("no PNG data")
    depth, colour = struct.unpack(">BB", data[24:26])
    kind = f"{depth}-bit {_PNG_COLOURS.get(colour, f'colour type {colour}')}"
    if depth not in (8, 16) or colour not in (0, 2):
        return kind, None
    pixels = imagecodecs.png_decode(data)
    if pixels.ndim != (2 if colour == 0 else 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        return f"{kind} with a transparent colour", None
    return kind, pixels


class _FirstComplaint(logging.Handler):
    """Keeps the first error that tifffile logs: it goes on reading where data is damaged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = self.text or record.getMessage()


def _read_tiff(data: bytes) -> tuple[str, Pixels | None]:
    logger, complaint = logging.getLogger("tifffile"), _FirstComplaint()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(complaint)
    try:
        found = _read_tiff_page(data)
    finally:
        logger.removeHandler(complaint)
        logger.propagate = propagated
    if complaint.text:
        raise ValueError(complaint.text)
    return found


def _read_tiff_page(data: bytes) -> tuple[str, Pixels | None]:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) != 1:
            return f"{len(tiff.pages)} images", None
        page = tiff.pages.first
        photometric = getattr(page.photometric, "name", str(page.photometric))
        kind = f"{page.dtype} {photometric} of shape {list(page.shape)}"
        plain = photometric in _TIFF_PLAIN and page.dtype in (np.uint8, np.uint16)
        wanted_ndim = 3 if photometric == "RGB" else 2
        if not plain or page.ndim != wanted_ndim or (wanted_ndim == 3 and page.shape[2] != 3):
            return kind, None
        pixels = np.ascontiguousarray(page.asarray())
        if pixels.size == 0 or pixels.shape != page.shape:
            raise ValueError(f"no pixels of shape {list(page.shape)}")
        return kind, pixels
