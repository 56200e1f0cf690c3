"""Image files of any kind that users denoise: 8 and 16 bits, grey, alpha, EXIF, colour profile.

| file | read | written |
|---|---|---|
| TIFF | row by row | row by row |
| PNG | whole | row by row |
| JPEG | whole | whole |
| WebP, BMP | whole, and a copy of 4 bytes a pixel | the same, and the file |

What networks train on and are measured with, 8-bit RGB alone, is read by
`starlight.denoise.images`.
"""

from __future__ import annotations

import errno
import io
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from starlight.denoise import png
from starlight.denoise.rounding import To8Bit, to_8_bits
from starlight.denoise.tiff import TiffReader, write_tiff
from starlight.files import complete_or_absent

Rows = Iterator[NDArray[Any]]

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
DEEP_SUFFIXES: Final = (".png", ".tif", ".tiff")
ALPHA_SUFFIXES: Final = (".png", ".tif", ".tiff", ".webp")  # Pillow reads no alpha in BMP
MOST_PIXELS: Final = 1 << 30  # of files that are read whole: a few bytes can claim any size
_CHANNELS: Final = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_JPEG_QUALITY: Final = 95
_SEGMENT: Final = 65533  # bytes of a JPEG segment behind its length


@dataclass(frozen=True)
class Picture:
    """An image file that is open, or what one is to be written like.

    shape: [H, W, C], C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. dtype: uint8 or uint16.
    rows: gives [rows, W, C] from the top downward, once.
    exif: TIFF bytes without JPEG's `Exif` in front. png_chunks: PNG's own colour and scale.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    rows: Callable[[], Rows] = field(repr=False)
    exif: bytes | None = field(default=None, repr=False)
    icc_profile: bytes | None = field(default=None, repr=False)
    png_chunks: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    premultiplied: bool = False

    def in_8_bits(self, rounding: To8Bit) -> Picture:
        """As `to_8_bits`; 8 bits stay as they are."""
        if self.dtype == np.uint8:
            return self

        def rows() -> Rows:
            for chunk in self.rows():
                yield to_8_bits(chunk, rounding)

        return replace(self, dtype=np.dtype(np.uint8), rows=rows)


@contextmanager
def open_picture(path: str | Path) -> Iterator[Picture]:
    """Open an image file by what it holds, whatever its name.

    Palettes become RGB, a transparent colour an alpha channel. Raises FileNotFoundError, or
    ValueError for what is no image, is damaged, or holds CMYK, floats, one bit or several images;
    damage behind the header may show while rows are read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image: path must be an existing file, got {path}")
    with path.open("rb") as file:
        head = file.read(16)
    with ExitStack() as stack:
        with _damage(path):
            picture = stack.enter_context(_open(path, head))
        yield replace(picture, rows=lambda: _guarded(path, picture))


def _open(path: Path, head: bytes) -> AbstractContextManager[Picture]:
    """The reader of what a file's first bytes tell; raises ValueError for others."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _open_tiff(path)
    if head[:8] == png.SIGNATURE:
        return _open_whole(path, _read_png)
    if head[:3] == b"\xff\xd8\xff":
        return _open_whole(path, _read_jpeg)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _open_whole(path, lambda data: _read_pillow(WebPImageFile(io.BytesIO(data))))
    if head[:2] == b"BM":
        return _open_whole(path, lambda data: _read_pillow(BmpImageFile(io.BytesIO(data))))
    raise ValueError("no PNG, JPEG, TIFF, WebP or BMP data")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """The decoders raise what they please on damaged data."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # Of the disk, not of a decoder; EINVAL is a seek to where a damaged file points.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise ValueError(f"image: {path} must be an intact image file, got {reason}") from None


def _guarded(path: Path, picture: Picture) -> Rows:
    rows = picture.rows()
    while True:
        with _damage(path):
            chunk = next(rows, None)
        if chunk is None:
            return
        yield chunk


@contextmanager
def _open_tiff(path: Path) -> Iterator[Picture]:
    with TiffReader(path) as tiff:
        yield Picture(
            tiff.shape, tiff.dtype, tiff.rows, tiff.exif(), tiff.icc_profile(),
            premultiplied=tiff.premultiplied,
        )  # fmt: skip


@contextmanager
def _open_whole(path: Path, read: Callable[[bytes], Picture]) -> Iterator[Picture]:
    if path.stat().st_size == 0:
        raise ValueError("an empty file")
    yield read(path.read_bytes())


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MOST_PIXELS}; make it a TIFF")


def _read_png(data: bytes) -> Picture:
    header = png.read_header(data)
    width, height = struct.unpack_from(">II", data, 16)
    if header.animated:
        raise ValueError("an animation")
    if header.depth == 1 and header.colour != 3:
        raise ValueError("1 bit a pixel")
    _check_size(height, width)
    pixels = imagecodecs.png_decode(data)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    kept = dict(header.kept)
    exif = kept.pop(b"eXIf", None)
    profile = png.icc_profile(header)
    kept.pop(b"iCCP", None)
    return _whole(pixels, exif, profile, tuple(kept.items()))


def _read_jpeg(data: bytes) -> Picture:
    with JpegImageFile(_view(data)) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"{image.mode} pixels; convert it to RGB first")
        _check_size(image.height, image.width)
        exif, profile = image.info.get("exif"), image.info.get("icc_profile")
    if data.find(b"\xff\xd9", _scan_start(data)) < 0:
        raise ValueError("file is truncated")
    pixels = imagecodecs.jpeg_decode(data)
    return _whole(pixels.reshape(*pixels.shape[:2], -1), _without_prefix(exif), profile)


def _view(data: bytes) -> io.BytesIO:
    """The header of a JPEG file for Pillow, which reads no further than the first scan."""
    return io.BytesIO(data[: _scan_start(data) + (1 << 16)])


def _scan_start(data: bytes) -> int:
    """Where the entropy-coded data of a JPEG begins: thumbnails lie before it."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("a broken JPEG header")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return at
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise ValueError("file is truncated")


def _read_pillow(image: ImageFile.ImageFile) -> Picture:
    with image:
        if (count := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"{count} images")
        _check_size(image.height, image.width)
        image.load()
        plain: Image.Image = image
        if image.mode == "P":
            plain = image.convert("RGB")
        if plain.mode not in _CHANNELS:
            raise ValueError(f"{plain.mode} pixels; convert it to RGB first")
        pixels = np.array(plain)
        exif, profile = image.info.get("exif"), image.info.get("icc_profile")
    return _whole(pixels.reshape(*pixels.shape[:2], -1), _without_prefix(exif), profile)


def _without_prefix(exif: bytes | None) -> bytes | None:
    return exif.removeprefix(b"Exif\0\0") if exif else None


def _whole(
    pixels: NDArray[Any],
    exif: bytes | None,
    icc_profile: bytes | None,
    png_chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> Picture:
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"pixels of shape {list(pixels.shape)}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"samples of {pixels.dtype}")
    height, width, channels = pixels.shape
    return Picture(
        (height, width, channels),
        pixels.dtype,
        lambda: iter((pixels,)),
        exif,
        icc_profile,
        png_chunks,
    )


def check_target(path: str | Path, picture: Picture) -> None:
    """Raise ValueError, with the remedy, unless files of the name's ending can hold the picture."""
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(
            f"image: name must end in one of {' '.join(PICTURE_SUFFIXES)}, got {Path(path).name!r}"
        )
    if picture.dtype == np.uint16 and suffix not in DEEP_SUFFIXES:
        raise ValueError(
            f"image: a file of 16 bits must end in one of {' '.join(DEEP_SUFFIXES)}, got "
            f"{Path(path).name!r}; or round it with --to-8bit"
        )
    if picture.shape[2] in (2, 4) and suffix not in ALPHA_SUFFIXES:
        raise ValueError(
            f"image: a file with alpha must end in one of {' '.join(ALPHA_SUFFIXES)}, got "
            f"{Path(path).name!r}"
        )
    if suffix == ".webp" and max(picture.shape[:2]) > 16383:
        raise ValueError(
            f"image: sides of a WebP must be at most 16383, got {list(picture.shape[:2])}"
        )


def write_picture(path: str | Path, bands: Iterable[NDArray[Any]], like: Picture) -> None:
    """Write rows in the format of the name's ending, with like's shape, depth and metadata.

    The file is complete or absent. JPEG: quality 95, colour at full resolution; the others keep
    every bit. BMP has no place for EXIF and colour profile. Raises as `check_target`.
    """
    path = Path(path)
    check_target(path, like)
    suffix = path.suffix.lower()
    with complete_or_absent(path) as partial:
        if suffix == ".png":
            chunks = [*like.png_chunks]
            if like.icc_profile:
                chunks.append(png.icc_chunk(like.icc_profile))
            if like.exif:
                chunks.append((b"eXIf", like.exif))
            png.write_png(partial, bands, like.shape, like.dtype.itemsize * 8, chunks)
        elif suffix in (".tif", ".tiff"):
            write_tiff(
                partial, bands, like.shape, like.dtype, like.exif, like.icc_profile,
                like.premultiplied,
            )  # fmt: skip
        elif suffix in (".jpg", ".jpeg"):
            _write_jpeg(partial, _together(bands, like), like)
        else:
            _write_pillow(partial, _together(bands, like), like, suffix)


def _together(bands: Iterable[NDArray[Any]], like: Picture) -> NDArray[Any]:
    pixels = np.empty(like.shape, like.dtype)
    top = 0
    for band in bands:
        pixels[top : top + len(band)] = band
        top += len(band)
    return pixels


def _write_jpeg(path: Path, pixels: NDArray[Any], like: Picture) -> None:
    grey = pixels.shape[2] == 1
    encoded = imagecodecs.jpeg_encode(
        pixels[..., 0] if grey else pixels,
        level=_JPEG_QUALITY,
        subsampling=None if grey else "444",
    )
    segments = []
    if like.exif:
        data = b"Exif\0\0" + like.exif
        if len(data) > _SEGMENT:
            raise ValueError(
                f"EXIF of a JPEG must be at most {_SEGMENT - 6} bytes, got {len(like.exif)}"
            )
        segments.append((0xE1, data))
    if like.icc_profile:
        step = _SEGMENT - 14
        parts = [like.icc_profile[at : at + step] for at in range(0, len(like.icc_profile), step)]
        for number, part in enumerate(parts, start=1):
            segments.append((0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part))
    view = memoryview(encoded)
    behind_jfif = 4 + struct.unpack(">H", view[4:6])[0]
    with path.open("wb") as file:
        file.write(view[:behind_jfif])
        for marker, data in segments:
            file.write(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data)
        file.write(view[behind_jfif:])


def _write_pillow(path: Path, pixels: NDArray[Any], like: Picture, suffix: str) -> None:
    channels = pixels.shape[2]
    if channels == 2:  # neither WebP nor BMP has grey with alpha
        pixels = pixels[..., (0, 0, 0, 1)]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    options: dict[str, Any] = {}
    if suffix == ".webp":
        options = {"lossless": True, "exact": True}
        if like.exif:
            options["exif"] = b"Exif\0\0" + like.exif
        if like.icc_profile:
            options["icc_profile"] = like.icc_profile
    encoded = io.BytesIO()  # not the file: Pillow takes a short write for a whole one
    image.save(encoded, format=suffix[1:].upper(), **options)
    path.write_bytes(encoded.getbuffer())
