"""The encoder's 3x3 of stride 2 as one operator, forward and backward (csrc/ops/strided_conv.h).

Importing this module loads the native one; ImportError names the command that builds it.
"""

from typing import Any

import torch
from torch import Tensor

from starlight.ops import native
from starlight.ops.checks import check_input, check_parameter

native.load()


def strided_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: bool = False,
    *,
    winograd: bool | None = None,
) -> Tensor:
    """3x3, stride 2, zero padding 1, ReLU with `activation`: `reference.strided_conv`.

    x: [N, C, H, W] in float32, bfloat16 or float64, on a GPU float16 too, any strides;
        read without a copy when channels lie side by side (channels last). N, H and W may be 0.
    weight: [K, C, 3, 3], bias: [K]; in x's dtype, or float32 beside a float16 or bfloat16 x.
    winograd: of the forward pass on the CPU, as for `dense_block`; None: from 4096 pixels of x on,
        in training 8192, of 16 channels in and out at least and 64 to 128 at most, and not where
        bfloat16 is multiplied as it is.
    Returns [N, K, ceil(H / 2), ceil(W / 2)] in x's dtype, channels last. bfloat16 is rounded on
    reading and writing alone: all sums are float32. Under autocast x is lowered, the parameters
    are not. Differentiable once.
    Raises TypeError for a dtype or device, ValueError for a shape.
    """
    what = "strided_conv"
    check_input(what, x)
    if weight.ndim != 4 or weight.shape[0] < 1:
        raise ValueError(
            f"{what}: weight must be [K, C, 3, 3] with K >= 1, got {list(weight.shape)}"
        )
    outputs = weight.shape[0]
    check_parameter(what, "weight", weight, (outputs, x.shape[1], 3, 3), x)
    check_parameter(what, "bias", bias, (outputs,), x)
    return torch.ops.starlight.strided_conv(x, weight, bias, activation, winograd)


@torch.library.register_fake("starlight::strided_conv")
def _shape(x: Tensor, weight: Tensor, bias: Tensor, relu: bool, winograd: bool | None) -> Tensor:
    images, _, height, width = x.shape
    return torch.empty(
        (images, weight.shape[0], (height + 1) // 2, (width + 1) // 2),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


@torch.library.register_fake("starlight::strided_conv_backward")
def _backward_shape(
    grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=torch.channels_last)
    return grad_x, weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, relu, _ = inputs
    ctx.save_for_backward(x, weight, bias, output if relu else None)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    gradients = torch.ops.starlight.strided_conv_backward(grad_out, *ctx.saved_tensors)
    return *gradients, None, None


torch.library.register_autograd("starlight::strided_conv", _backward, setup_context=_keep)


def _second_derivative(ctx: Any, *grads: Any) -> None:
    raise RuntimeError("strided_conv: derivatives must be of first order, got a second one")


torch.library.register_autograd("starlight::strided_conv_backward", _second_derivative)
