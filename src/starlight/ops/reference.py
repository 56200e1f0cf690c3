"""What the fused operators compute, in plain PyTorch; differentiable, any device and dtype."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pixel_shuffle, relu


def dense_block(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Dense residual block: x + fuse(x, out1, out2, out3), out_k = relu(conv_k(all before)).

    x: [N, M, H, W]. weights: three 3x3, [G, M, 3, 3], [G, M + G, 3, 3], [G, M + 2G, 3, 3], with
    zero padding, then the fusing 1x1, [M, M + 3G, 1, 1]. biases: [G], [G], [G], [M].
    Returns [N, M, H, W]. Source: US 12,394,023 B2, FIG. 3.
    """
    members = x
    for weight, bias in zip(weights[:3], biases[:3], strict=True):
        members = torch.cat((members, relu(conv2d(members, weight, bias, padding=1))), 1)
    return x + conv2d(members, weights[3], biases[3])


def strided_conv(x: Tensor, weight: Tensor, bias: Tensor, activation: bool = False) -> Tensor:
    """The encoder's step down: 3x3, stride 2, zero padding 1; ReLU after it with `activation`.

    x: [N, C, H, W], weight: [K, C, 3, 3], bias: [K] -> [N, K, ceil(H / 2), ceil(W / 2)].
    """
    out = conv2d(x, weight, bias, stride=2, padding=1)
    return relu(out) if activation else out


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """3x3 of stride 1, zero padding 1, plus `skip` where one is given.

    x: [N, C, H, W], weight: [K, C, 3, 3], bias: [K], skip: [N, K, H, W] -> [N, K, H, W].
    """
    out = conv2d(x, weight, bias, padding=1)
    return out if skip is None else out + skip


def upsample(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """The decoder's step up: 1x1, pixel shuffle by 2, plus `skip` where one is given.

    Shuffled, channel 4k + 2dy + dx of the 1x1 is channel k of pixel (2y + dy, 2x + dx).
    x: [N, C, H, W], weight: [4 K, C, 1, 1], bias: [4 K], skip: [N, K, 2 H, 2 W]
    -> [N, K, 2 H, 2 W].
    """
    out = pixel_shuffle(conv2d(x, weight, bias), 2)
    return out if skip is None else out + skip
