"""What the fused operators compute, in plain PyTorch; differentiable, any device and dtype."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu


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
