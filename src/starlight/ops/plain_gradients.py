"""Gradients of a convolution by PyTorch, for operators that are fused in the forward pass alone."""

from typing import Any

import torch
from torch import Tensor


def convolution_gradients(ctx: Any, grad_out: Tensor, padding: int) -> tuple[Tensor | None, ...]:
    """Of x, weight and bias of a convolution of stride 1, None where nobody asks for it.

    ctx: saved x [N, C, H, W] and weight [K, C, s, s], `bias_dtype`, `needs_input_grad`.
    grad_out: [N, K, H, W] in x's dtype, as which the weight is read.
    """
    x, weight = ctx.saved_tensors
    if x.numel() == 0:  # torch's convolutions take no empty rows
        return x.new_zeros(x.shape), weight.new_zeros(weight.shape), _no_bias(ctx, weight)
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad_out,
        x,
        weight.to(x.dtype),
        [weight.shape[0]],
        [1, 1],
        [padding, padding],
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
    )


def _no_bias(ctx: Any, weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[:1], dtype=ctx.bias_dtype)
