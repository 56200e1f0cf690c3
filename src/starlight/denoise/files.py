"""Image files and folders through a function on arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starlight.denoise.images import check_writable, list_images, open_rgb, write_image
from starlight.files import check_folder


def map_images(
    function: Callable[[NDArray[np.uint8], str], NDArray[np.uint8]],
    source: str | Path,
    target: str | Path,
    progress: bool = False,
) -> list[Path]:
    """Write function(pixels, file name) of an image file to a file, or of a folder to a folder.

    function: uint8 [H, W, 3] to the same. source: a file, or a folder whose images are taken in
    order of name. target: a file name, or a folder (made when source is one) that receives the
    same names. EXIF and colour profile are carried over; each file is written atomically.
    Returns the files written. Raises FileNotFoundError or ValueError, before any work where the
    names alone tell; source and target must differ.
    """
    source, target = Path(source), Path(target)
    if not source.exists():
        raise FileNotFoundError(f"images: source must exist, got {source}")
    if source.is_dir():
        if target.exists() and not target.is_dir():
            raise ValueError(f"images: target must be a folder as source is, got {target}")
        pairs = [(path, target / path.name) for path in list_images(source)]
    else:
        pairs = [(source, target / source.name if target.is_dir() else target)]
        check_writable(pairs[0][1])
        check_folder(pairs[0][1])
    if source.resolve() == target.resolve() or pairs[0][0].resolve() == pairs[0][1].resolve():
        raise ValueError(f"images: target must not be source itself, got {target}")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    for read, write in tqdm(pairs, disable=None if progress else True, unit="image"):
        picture = open_rgb(read)
        write_image(write, function(np.array(picture), read.name), like=picture)
    return [write for _, write in pairs]
