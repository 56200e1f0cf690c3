"""8-bit RGB image files, read strictly and written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from starlight.files import write_atomically

# How each kind of file is written: as little as possible is lost of the pixels.
_SAVE_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}
IMAGE_SUFFIXES = tuple(_SAVE_OPTIONS)


def open_rgb(path: str | Path) -> Image.Image:
    """An image file, decoded, in 8-bit RGB with its metadata in `info`; nothing is converted.

    Raises FileNotFoundError, or ValueError for what is no image, is truncated, or holds grey,
    alpha, palette, CMYK, 16-bit or several frames.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image: path must be an existing file, got {path}")
    try:
        with Image.open(path) as image:
            kind = _kind(image)
            if kind == "RGB":
                image.load()
                return image
    except UnidentifiedImageError:
        raise ValueError(f"image: {path} must be a readable image file, got unknown data") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image: {path} must be an intact image file, got {error}") from None
    raise ValueError(
        f"image: {path} must be 8-bit RGB, got {kind}; convert it first, for example: "
        f'python -c "from PIL import Image; '
        f"Image.open('{path}').convert('RGB').save('{path.stem}_rgb.png')\""
    )


def _kind(image: ImageFile.ImageFile) -> str:
    """`RGB` for what `open_rgb` takes, otherwise what it is."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        return f"{frames} frames"
    # Pillow opens 16-bit colour files as mode RGB and drops the low byte; the raw mode tells.
    if any(";16" in str(tile[3]) for tile in image.tile):
        return f"16-bit {image.mode}"
    if image.mode == "RGB" and "transparency" in image.info:
        return "RGB with a transparent colour"
    return image.mode


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Pixels of an 8-bit RGB file, uint8 [H, W, 3], as stored (EXIF orientation not applied).

    Raises as `open_rgb`.
    """
    return np.array(open_rgb(path))


def check_writable(path: str | Path) -> None:
    """Raise ValueError unless the name's ending is one of `IMAGE_SUFFIXES`."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SAVE_OPTIONS:
        raise ValueError(
            f"image: name must end in one of {' '.join(IMAGE_SUFFIXES)}, got {Path(path).name!r}"
        )


def write_image(
    path: str | Path, pixels: NDArray[np.uint8], like: Image.Image | None = None
) -> None:
    """Write uint8 [H, W, 3] RGB in the format of the name's ending, atomically.

    PNG, WebP (lossless) and TIFF keep every bit; JPEG is quality 95 without chroma subsampling.
    like: an image whose EXIF and colour profile the file takes over. Raises ValueError for another
    ending or shape, TypeError for another dtype.
    """
    check_writable(path)
    if pixels.dtype != np.uint8:
        raise TypeError(f"image: pixels must be uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"image: pixels must have shape [H, W, 3], got {list(pixels.shape)}")
    file_format, options = _SAVE_OPTIONS[Path(path).suffix.lower()]
    metadata = {} if like is None else {
        key: like.info[key] for key in ("exif", "icc_profile") if like.info.get(key)
    }  # fmt: skip
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format=file_format, **options, **metadata)
    write_atomically(path, encoded.getvalue())


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in a folder, by name; hidden ones are left out.

    Raises FileNotFoundError when there is no such folder, ValueError when it has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"images: folder must exist, got {folder}")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise ValueError(
            f"images: folder must hold a file ending in {' '.join(IMAGE_SUFFIXES)}, got {folder}"
        )
    return paths
