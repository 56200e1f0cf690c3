"""Generator and discriminator of camera noise, and their losses on ordered pairs.

Both see the condition Nc: the truth image (3 planes) and the gains. At full width and 256 x 256:

    generator      8 planes = truth 3, normal noise 3, log analog gain, log digital gain
                   3 x 64 @256, 3 x 128 @128, 8 x 256 @64, 3 x 128 @128, 3 x 64 @256, 1 x 3 @256
    discriminator  12 planes = truth 3, gains 2, log total gain, first image 3, second image 3
                   3 x 64 @256, 3 x 128 @128, 3 x 256 @64, 2 x 512 @32, 1 x 64 @16, then fully
                   connected (`encoder`) or mirrored (`unet`)

Every layer is a 3 x 3 convolution. Images of noise are residuals to the truth, in units of the
expected deviation at their gain (see `condition`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from starlight.noise.gan.config import (
    DISCRIMINATOR_GRID,
    GENERATOR_GRID,
    WIDTH_FULL,
    GanConfig,
)

# (channels at full width, convolutions) of the stages, from full resolution down.
GENERATOR_STAGES = ((64, 3), (128, 3), (256, 8))
DISCRIMINATOR_STAGES = ((64, 3), (128, 3), (256, 3), (512, 2), (64, 1))
GENERATOR_PLANES = 8
DISCRIMINATOR_PLANES = 12
LEAK = 0.2


class Generator(nn.Module):
    """(truth, gains, normal noise) -> noise residual; U-shaped, with additive skips.

    Convolution, batch norm, ReLU; 2 x 2 average pooling down; bilinear x 2 and a convolution up.
    The outermost skip adds the normal noise to the last convolution, which starts at zero: so the
    first residuals are independent noise of the expected deviation.
    """

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        (full, n_full), (half, n_half), (quarter, n_quarter) = _scaled(
            GENERATOR_STAGES, config.width
        )
        self.down_full = _normalised(GENERATOR_PLANES, full, n_full)
        self.down_half = _normalised(full, half, n_half)
        self.middle = _normalised(half, quarter, n_quarter)
        self.to_half = _convolution(quarter, half)
        self.up_half = _normalised(half, half, n_half)
        self.to_full = _convolution(half, full)
        self.up_full = _normalised(full, full, n_full)
        self.last = _convolution(full, 3)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Noise residual [N, 3, H, W].

        condition: [N, 5, H, W], truth and the two gains; noise: [N, 3, H, W] standard normal. H
        and W are multiples of 4. Raises ValueError otherwise.
        """
        _check_planes("generator", condition, GENERATOR_PLANES - 3, GENERATOR_GRID)
        full = self.down_full(torch.cat([condition, noise], 1))
        half = self.down_half(F.avg_pool2d(full, 2))
        middle = self.middle(F.avg_pool2d(half, 2))
        half = self.up_half(self.to_half(_twice(middle)) + half)
        full = self.up_full(self.to_full(_twice(half)) + full)
        return self.last(full) + noise


class Answers(NamedTuple):
    """What the discriminator says of pairs of images, float32.

    real_first: D(Nc, first, second), [N]; fake_first: D(Nc, second, first), [N], 1 - real_first
    where first is real. logits: what the sigmoid was taken of, [N, 1] or [N, 1, H, W].
    """

    real_first: Tensor
    fake_first: Tensor
    logits: Tensor


class Discriminator(nn.Module):
    """(condition, first, second) -> probability that first is real and second generated.

    Convolution under spectral norm, leaky ReLU 0.2; 2 x 2 max pooling. The last layer is free: held
    to the bound too, all answers are 1/2 for hundreds of steps. What it says of both orders alike
    is taken away: else it drifts to one answer for both, where the sigmoid has no gradient.
    """

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.crop = config.crop
        self.form = config.discriminator
        stages = _scaled(DISCRIMINATOR_STAGES, config.width)
        planes = [DISCRIMINATOR_PLANES, *(width for width, _ in stages)]
        self.down = nn.ModuleList(
            _bounded(before, width, count)
            for before, (width, count) in zip(planes, stages, strict=False)
        )
        if self.form == "encoder":
            side = config.crop // DISCRIMINATOR_GRID
            self.score: nn.Module = nn.Linear(stages[-1][0] * side * side, 1)
        else:
            upward = stages[-2::-1]
            self.join = nn.ModuleList(
                _BoundedConv(before, width)
                for before, (width, _) in zip(planes[:1:-1], upward, strict=False)
            )
            self.up = nn.ModuleList(_bounded(width, width, count) for width, count in upward)
            self.score = nn.Conv2d(upward[-1][0], 1, 3, padding=1)

    def forward(self, condition: Tensor, first: Tensor, second: Tensor) -> Answers:
        """Probabilities that first is real and second generated, and the other way round.

        With f the network up to its sigmoid, D(Nc, a, b) = sigmoid(f(Nc, a, b) - f(Nc, b, a)), so
        the two add up to 1. condition: [N, 6, H, W], truth, gains and total gain; first, second:
        [N, 3, H, W] residuals. H and W are the crop's (`encoder`), or multiples of 16 (`unet`).
        Raises ValueError otherwise.
        """
        planes = DISCRIMINATOR_PLANES - 6
        _check_planes("discriminator", condition, planes, DISCRIMINATOR_GRID)
        if self.form == "encoder" and condition.shape[2:] != (self.crop, self.crop):
            raise ValueError(
                f"discriminator: images must be {self.crop} x {self.crop}, the crop that its fully "
                f"connected layer was made for, got {list(condition.shape[2:])}"
            )
        orders = [torch.cat([condition, a, b], 1) for a, b in ((first, second), (second, first))]
        this, other = self._logits(torch.cat(orders)).float().chunk(2)
        # [N, 1, ...]; the score of an image is the mean over its pixels where there are several.
        logits = this - other
        score = torch.sigmoid(logits).flatten(1).mean(1)
        return Answers(score, 1.0 - score, logits)

    def _logits(self, x: Tensor) -> Tensor:
        """f: [N, 1] (`encoder`) or [N, 1, H, W] (`unet`)."""
        levels = []
        for depth, stage in enumerate(self.down):
            x = self._run(stage, F.max_pool2d(x, 2) if depth else x)
            levels.append(x)
        if self.form == "encoder":
            return self.score(x.flatten(1))
        for join, stage, skip in zip(self.join, self.up, levels[-2::-1], strict=True):
            x = self._run(stage, join(_twice(x)) + skip)
        return self.score(x)

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        for convolution in stage.children():
            x = F.leaky_relu(convolution(x), LEAK)
        return x


def generator_loss(answers: Answers) -> Tensor:
    """E[D(Nc, Nr, Nf)^2] + E[(D(Nc, Nf, Nr) - 1)^2]."""
    return answers.real_first.square().mean() + (answers.fake_first - 1.0).square().mean()


def discriminator_loss(answers: Answers) -> Tensor:
    """E[(D(Nc, Nr, Nf) - 1)^2] + E[D(Nc, Nf, Nr)^2]."""
    return (answers.real_first - 1.0).square().mean() + answers.fake_first.square().mean()


def _scaled(stages: Sequence[tuple[int, int]], width: int) -> list[tuple[int, int]]:
    """The stages with their channels at another width of the first stage."""
    return [(channels * width // WIDTH_FULL, count) for channels, count in stages]


def _convolution(planes: int, width: int, bias: bool = True) -> nn.Conv2d:
    """The generator's convolution: borders repeat the edge.

    Zeros would tell it where a crop ends. It reaches 60 pixels, so a small crop is all border, and
    what it learns to do there would not be what an image's middle gets.
    """
    return nn.Conv2d(planes, width, 3, padding=1, padding_mode="replicate", bias=bias)


def _normalised(planes: int, width: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in [planes] + [width] * (count - 1):
        layers += [
            _convolution(before, width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _BoundedConv(planes: int, width: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(planes, width, 3, padding=1))


def _bounded(planes: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        *(_BoundedConv(before, width) for before in [planes] + [width] * (count - 1))
    )


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _check_planes(what: str, condition: Tensor, planes: int, grid: int) -> None:
    shape = list(condition.shape)
    if len(shape) != 4 or shape[1] != planes or shape[2] % grid or shape[3] % grid or 0 in shape:
        raise ValueError(
            f"{what}: condition must have shape [N, {planes}, H, W] with H and W multiples of "
            f"{grid}, got {shape}"
        )
