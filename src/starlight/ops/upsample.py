"""The decoder's step up as one operator: 1x1, pixel shuffle, skip (csrc/ops/upsample.h).

Importing this module loads the native one; ImportError names the command that builds it.
"""

from typing import Any

import torch
from torch import Tensor

from starlight.ops import native
from starlight.ops.checks import check_input, check_parameter, check_skip

native.load()


def upsample(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """1x1 to four times the channels, pixel shuffle, plus `skip`: `reference.upsample`.

    x: [N, C, H, W] in float32, bfloat16 or float64, on a GPU float16 too, any strides;
        read without a copy when channels lie side by side (channels last). N, H and W may be 0.
    weight: [4 K, C, 1, 1], bias: [4 K]; in x's dtype, or float32 beside a float16 or bfloat16 x.
    skip: [N, K, 2 H, 2 W] in x's dtype.
    Returns [N, K, 2 H, 2 W] in x's dtype, channels last. bfloat16 is rounded on reading and writing
    alone: all sums are float32; where the processor has its dot product, parameters are rounded
    to it too. Under autocast x and skip are lowered, the parameters are not. Differentiable once on
    the CPU; on a GPU both passes are PyTorch's own.
    Raises TypeError for a dtype or device, ValueError for a shape.
    """
    what = "upsample"
    check_input(what, x)
    if weight.ndim != 4 or weight.shape[0] < 4 or weight.shape[0] % 4:
        raise ValueError(
            f"{what}: weight must be [4 K, C, 1, 1] with K >= 1, got {list(weight.shape)}"
        )
    images, inputs, height, width = x.shape
    outputs = weight.shape[0]
    check_parameter(what, "weight", weight, (outputs, inputs, 1, 1), x)
    check_parameter(what, "bias", bias, (outputs,), x)
    check_skip(what, skip, (images, outputs // 4, 2 * height, 2 * width), x)
    return torch.ops.starlight.upsample(x, weight, bias, skip)


@torch.library.register_fake("starlight::upsample")
def _shape(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None) -> Tensor:
    images, _, height, width = x.shape
    return torch.empty(
        (images, weight.shape[0] // 4, 2 * height, 2 * width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


@torch.library.register_fake("starlight::upsample_backward")
def _backward_shape(
    grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=torch.channels_last)
    return grad_x, weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.starlight.upsample_backward(grad_out, *ctx.saved_tensors)
    return *gradients, grad_out if ctx.needs_input_grad[3] else None


torch.library.register_autograd("starlight::upsample", _backward, setup_context=_keep)


def _second_derivative(ctx: Any, *grads: Any) -> None:
    raise RuntimeError("upsample: derivatives must be of first order, got a second one")


torch.library.register_autograd("starlight::upsample_backward", _second_derivative)
