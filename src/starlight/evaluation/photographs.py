"""The colour photographs inside the installed scikit-image package: no download, no folder.

They are few and suit demonstrations and tests; a published figure wants a public benchmark.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray

from starlight.denoise.images import read_image

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


def _read(names: tuple[str, ...]) -> dict[str, NDArray[np.uint8]]:
    folder = Path(skimage.data.__file__).parent
    return {Path(name).stem: read_image(folder / name) for name in names}
