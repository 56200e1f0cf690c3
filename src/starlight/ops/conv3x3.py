"""The 3x3 of head, second and tail as one operator, a skip fused (csrc/ops/conv3x3.h).

Importing this module loads the native one; ImportError names the command that builds it.
"""

from typing import Any

import torch
from torch import Tensor

from starlight.ops import native
from starlight.ops.checks import check_input, check_parameter, check_skip

native.load()


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    *,
    winograd: bool | None = None,
) -> Tensor:
    """3x3, zero padding 1, plus `skip` where one is given: `reference.conv3x3`.

    x: [N, C, H, W] in float32, bfloat16 or float64, on a GPU float16 too, any strides;
        read without a copy when channels lie side by side (channels last). N, H and W may be 0.
    weight: [K, C, 3, 3], bias: [K]; in x's dtype, or float32 beside a float16 or bfloat16 x.
    skip: [N, K, H, W] in x's dtype.
    winograd: as for `dense_block`; None: also only from 16 channels in and out on.
    Returns [N, K, H, W] in x's dtype, channels last. bfloat16 is rounded on reading and writing
    alone: all sums are float32. Under autocast x and skip are lowered, the parameters are not.
    The backward pass is PyTorch's own; on a GPU the forward pass is too.
    Raises TypeError for a dtype or device, ValueError for a shape.
    """
    what = "conv3x3"
    check_input(what, x)
    if weight.ndim != 4 or weight.shape[0] < 1:
        raise ValueError(
            f"{what}: weight must be [K, C, 3, 3] with K >= 1, got {list(weight.shape)}"
        )
    images, inputs, height, width = x.shape
    outputs = weight.shape[0]
    check_parameter(what, "weight", weight, (outputs, inputs, 3, 3), x)
    check_parameter(what, "bias", bias, (outputs,), x)
    check_skip(what, skip, (images, outputs, height, width), x)
    return torch.ops.starlight.conv3x3(x, weight, bias, skip, winograd)


@torch.library.register_fake("starlight::conv3x3")
def _shape(
    x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None, winograd: bool | None
) -> Tensor:
    images, _, height, width = x.shape
    return torch.empty(
        (images, weight.shape[0], height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, _, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = bias.dtype


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """Of x, weight, bias and skip, None where nobody asks for it."""
    x, weight = ctx.saved_tensors
    grad_skip = grad_out if ctx.needs_input_grad[3] else None
    if x.numel() == 0:  # torch's convolutions take no empty rows
        grad_bias = weight.new_zeros(weight.shape[:1], dtype=ctx.bias_dtype)
        return torch.zeros_like(x), torch.zeros_like(weight), grad_bias, grad_skip, None
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad_out,
        x,
        weight.to(x.dtype),
        [weight.shape[0]],
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        list(ctx.needs_input_grad[:3]),
    )
    return (
        grad_x,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None else grad_bias.to(ctx.bias_dtype),
        grad_skip,
        None,
    )


torch.library.register_autograd("starlight::conv3x3", _backward, setup_context=_keep)
