"""The colour photographs inside the installed scikit-image package: no download, no folder.

They are few and suit demonstrations and tests; a published figure wants a public benchmark.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray

from starlight.denoise.images import list_images, read_image

# Of a stereo pair one half is taken; micrographs, fundus and telescope images, drawings and
# synthetic patterns of the package are no camera photographs and are left out.
TRAINING_NAMES = ("astronaut.png", "motorcycle_left.png", "rocket.jpg")
EVALUATION_NAMES = ("chelsea.png", "coffee.png")


def training_photographs() -> dict[str, NDArray[np.uint8]]:
    """Name to photograph, uint8 [H, W, 3] in RGB; none of them is an evaluation photograph."""
    return _read(TRAINING_NAMES)


def evaluation_photographs() -> dict[str, NDArray[np.uint8]]:
    """Name to held-out photograph, uint8 [H, W, 3] in RGB: never trained on."""
    return _read(EVALUATION_NAMES)


def held_out(
    folder: Path | None = None, limit: int | None = None, crop: int = 0
) -> dict[str, NDArray[np.uint8]]:
    """Name to clean photograph of a folder, without one `evaluation_photographs`.

    limit: the first ones by name. crop: the middle crop x crop of each; 0: all of it.
    Raises FileNotFoundError or ValueError for a missing or empty folder or an unreadable image.
    """
    if folder is None:
        photographs = dict(islice(evaluation_photographs().items(), limit))
    else:
        photographs = {path.name: read_image(path) for path in list_images(folder)[:limit]}
    return {name: middle(photograph, crop) for name, photograph in photographs.items()}


def middle(image: NDArray[np.uint8], crop: int) -> NDArray[np.uint8]:
    """The middle crop x crop of [H, W, 3]; a shorter side, or any for crop 0, stays whole."""
    if crop == 0:
        return image
    top, left = (max(0, (size - crop) // 2) for size in image.shape[:2])
    return image[top : top + crop, left : left + crop]


def _read(names: tuple[str, ...]) -> dict[str, NDArray[np.uint8]]:
    folder = Path(skimage.data.__file__).parent
    return {Path(name).stem: read_image(folder / name) for name in names}
