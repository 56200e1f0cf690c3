"""What both networks are told of a noise image, and the units in which they see it.

Planes of the condition, in order: truth as 2 x - 1 (white: x = 1) for three channels, then log2 / 4
of the analog gain, of the digital gain and, for the discriminator alone, of their product. The
digital gain includes what corrected the exposure (`Pair.correcting_gain`).

A residual is (noise image - truth) / s with s the deviation that the calibrated variance model
expects at that gain, averaged over intensities: it keeps both networks' input of order one from the
lowest gain to the highest. How the deviation depends on intensity is left to the networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from starlight.noise.baseline import VarianceModel

GAIN_OCTAVES = 4.0


@dataclass(frozen=True)
class Units:
    """Residual units of a camera, and the integer depth of its images.

    white: the integer that stands for 1, 255 or 65535. model: calibrated on the training pairs.
    """

    model: VarianceModel
    white: int

    def deviation(self, analog_gain: float, digital_gain: float) -> float:
        """s for a gain, white = 1."""
        return float(np.sqrt(self.model.at(analog_gain, digital_gain).mean()))

    def deviations(self, gains: Tensor) -> Tensor:
        """s for gains [N, 2], as [N, 1, 1, 1] float32."""
        values = [self.deviation(*row) for row in gains.tolist()]
        return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)

    def image(self, truth: Tensor, residual: Tensor, deviations: Tensor) -> Tensor:
        """Noise image as a file would hold it: rounded to an integer level, clipped to 0..1.

        truth: [N, 3, H, W], white = 1. The gradient passes through the rounding unchanged and stops
        where the clipping does.
        """
        noisy = (truth + deviations * residual).clamp(0.0, 1.0)
        rounded = torch.floor(noisy.detach() * self.white + 0.5) / self.white
        return noisy + (rounded - noisy).detach()


def planes(truth: Tensor, gains: Tensor) -> Tensor:
    """Condition planes [N, 6, H, W] of truth [N, 3, H, W], white = 1, and gains [N, 2]."""
    logs = torch.cat([gains, gains.prod(1, keepdim=True)], 1).log2() / GAIN_OCTAVES
    height, width = truth.shape[2:]
    spread = logs.to(truth.dtype)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([2.0 * truth - 1.0, spread], 1)
