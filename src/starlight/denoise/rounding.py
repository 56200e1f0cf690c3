"""From 16 bits to 8: the roundings that `--to-8bit` names."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

To8Bit = Literal["nearest", "floor"]
TO_8BIT: tuple[To8Bit, ...] = get_args(To8Bit)


def to_8_bits(pixels: NDArray[Any], rounding: To8Bit) -> NDArray[np.uint8]:
    """uint16 to uint8. nearest: floor(v / 257 + 1/2); floor: floor(v / 256)."""
    if rounding == "floor":
        return (pixels >> 8).astype(np.uint8)
    return ((pixels.astype(np.uint32) * 2 + 257) // 514).astype(np.uint8)
