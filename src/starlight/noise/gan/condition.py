"""What both networks are told of a noise image, and the units in which they see it.

Planes of the condition, in order: truth as 2 x - 1 (white: x = 1) for three channels, then log2 / 4
of the analog gain, of the digital gain and, for the discriminator alone, of their product. The
digital gain includes what corrected the exposure (`Pair.correcting_gain`).

A residual is (noise image - truth) / s, where s is the deviation that the calibrated noise level
function expects of that sample at that gain. It keeps what both networks see and make of order one
from dark to bright and from the lowest gain to the highest; what the networks add is all that
independent noise of that deviation lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from starlight.noise.baseline import VarianceModel

GAIN_OCTAVES = 4.0


@dataclass(frozen=True)
class Units:
    """Residual units of a camera, and the integer depth of its images.

    white: the integer that stands for 1, 255 or 65535. model: calibrated on the training pairs.
    """

    model: VarianceModel
    white: int

    def deviations(self, truth: Tensor, gains: Tensor) -> Tensor:
        """s of every sample, [N, 3, H, W], white = 1; at least a quarter of a level.

        truth: [N, 3, H, W], white = 1; gains: [N, 2], on the CPU.
        """
        at_knots = np.stack([self.model.at(*row) for row in gains.tolist()])
        table = torch.from_numpy(at_knots).to(truth.device, truth.dtype)  # [N, 3, K]
        position = truth * (table.shape[2] - 1)
        lower = position.floor().clamp_(0, table.shape[2] - 2)
        index = lower.long().flatten(2)
        low, high = table.gather(2, index), table.gather(2, index + 1)
        variance = torch.lerp(low, high, (position - lower).flatten(2)).view_as(truth)
        return variance.clamp_min((0.25 / self.white) ** 2).sqrt()

    def image(self, truth: Tensor, residual: Tensor, deviations: Tensor) -> Tensor:
        """Noise image as a file would hold it: rounded to an integer level, clipped to 0..1.

        All [N, 3, H, W], truth and deviations with white = 1. The gradient passes through the
        rounding unchanged; where the value is clipped, it passes if descending along it leads back
        into the range. Otherwise a generator that once clips everything could never learn again.
        """
        noisy = _Clip.apply(truth + deviations * residual)
        rounded = torch.floor(noisy.detach() * self.white + 0.5) / self.white
        return noisy + (rounded - noisy).detach()


class _Clip(torch.autograd.Function):
    """Clipping to 0..1, with the gradient of `Units.image`."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)  # type: ignore[attr-defined]
        return values.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
        leads_out = ((values < 0.0) & (gradient > 0.0)) | ((values > 1.0) & (gradient < 0.0))
        return gradient.masked_fill(leads_out, 0.0)


def planes(truth: Tensor, gains: Tensor) -> Tensor:
    """Condition planes [N, 6, H, W] of truth [N, 3, H, W], white = 1, and gains [N, 2]."""
    logs = torch.cat([gains, gains.prod(1, keepdim=True)], 1).log2() / GAIN_OCTAVES
    height, width = truth.shape[2:]
    spread = logs.to(truth.dtype)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([2.0 * truth - 1.0, spread], 1)
