"""What training minimises."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Kind = Literal["l1", "l2", "log"]

LEAST_SQUARE = 1e-7  # mean square: a seventh of what rounding pixels alone leaves


def sample_loss(kind: Kind, output: Tensor, clean: Tensor) -> Tensor:
    """A scalar of images [N, 3, H, W] in the network's units.

    l1, l2: mean absolute or squared error. log: mean over images of the logarithm of the mean
    squared error, PSNR / -4.34 dB but for a constant: little noise counts as much as strong.
    """
    error = output - clean
    if kind == "l1":
        return error.abs().mean()
    squares = error.square().mean((1, 2, 3))
    return (squares.clamp_min(LEAST_SQUARE).log() if kind == "log" else squares).mean()
