"""What quantisation-aware training minimises."""

from typing import Literal

import torch
from torch import Tensor, nn

from starlight.models.denoiser import DenoisingNetwork
from starlight.training.losses import LEAST_SQUARE

Measure = Literal["log", "l1"]


class Objective:
    """Error to the clean image and, for a share of it, to what the float network makes of it.

    log: mean over images of log(mean squared error). A hundredth is 0.043 dB whatever the image's
        noise, so images of little noise, where integers lose most, do not drown.
    l1: mean absolute error.
    distillation: share, 0..1, that follows the float network; 0 does not run it.
    """

    def __init__(
        self, teacher: DenoisingNetwork, measure: Measure = "log", distillation: float = 0.0
    ) -> None:
        self.teacher = teacher
        self.measure = measure
        self.distillation = distillation

    def __call__(self, network: nn.Module, noisy: Tensor, clean: Tensor) -> Tensor:
        """A scalar; images [N, 3, H, W] in the network's units."""
        output = network(noisy)
        error = self._error(output, clean)
        if self.distillation:
            with torch.no_grad():
                target = self.teacher(noisy)
            share = self.distillation
            error = (1 - share) * error + share * self._error(output, target)
        if self.measure == "log":
            error = error.clamp_min(LEAST_SQUARE).log()
        return error.mean()

    def _error(self, output: Tensor, target: Tensor) -> Tensor:
        """[N], mean square or mean magnitude."""
        difference = output - target
        power = difference.square() if self.measure == "log" else difference.abs()
        return power.mean((1, 2, 3))
