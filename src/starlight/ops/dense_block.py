"""The dense residual block as one operator, forward and backward (csrc/ops/dense_block.h).

Importing this module loads the native one; ImportError names the command that builds it.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from starlight.ops import native
from starlight.ops.checks import check_input, check_parameter

native.load()
_BF16_DOTS: Final[bool] = torch.ops.starlight.bf16_dots()


def dense_block(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    winograd: bool | None = None,
) -> Tensor:
    """x + fuse(x, out1, out2, out3), out_k = relu(conv_k(all before)): `reference.dense_block`.

    x: [N, M, H, W] in float32, bfloat16 or float64, on a GPU float16 too, any strides;
        read without a copy when channels lie side by side (channels last). N, H and W may be 0.
    weights: [G, M, 3, 3], [G, M + G, 3, 3], [G, M + 2G, 3, 3], [M, M + 3G, 1, 1]; biases: [G], [G],
        [G], [M]; in x's dtype, or float32 beside a float16 or bfloat16 x.
    winograd: F(4x4, 3x3) in place of direct 3x3, with the rounding that docs/KERNELS.md bounds;
        None: where there are pixels enough for it to pay. Without effect on float64
        and on a GPU.
    Returns [N, M, H, W] in x's dtype, channels last. bfloat16 is rounded on reading and writing
    alone: all sums are float32. Under autocast x is lowered, the parameters are not.
    Differentiable once; for the backward pass x and the parameters are kept, and on the CPU
    [N, 3G, H, W] of intermediates. There direct convolutions multiply bfloat16 as it is then,
    parameters rounded to it, where the processor has its dot product. In inference mode the CPU
    keeps the packed form of the parameters from call to call.
    Raises TypeError for a dtype or device, ValueError for a shape.
    """
    what = "dense_block"
    check_input(what, x)
    for name, values in (("weights", weights), ("biases", biases)):
        if len(values) != 4:
            raise ValueError(f"{what}: {name} must be 4, got {len(values)}")
    if weights[0].ndim != 4 or weights[0].shape[0] < 1:
        raise ValueError(
            f"{what}: weights[0] must be [G, M, 3, 3] with G >= 1, got {list(weights[0].shape)}"
        )
    width, growth = x.shape[1], weights[0].shape[0]
    for k in range(4):
        outputs, side = (growth, 3) if k < 3 else (width, 1)
        shape = (outputs, width + k * growth, side, side)
        check_parameter(what, f"weights[{k}]", weights[k], shape, x)
        check_parameter(what, f"biases[{k}]", biases[k], (outputs,), x)
    parameters = list(weights), list(biases)
    differentiated = any(value.requires_grad for value in (x, *weights, *biases))
    if differentiated and torch.is_grad_enabled() and x.device.type == "cpu":
        rolling = not _layered(x, winograd)
        return torch.ops.starlight.dense_layers(x, *parameters, rolling)[0]
    return torch.ops.starlight.dense_block(x, *parameters, winograd)


def _layered(x: Tensor, winograd: bool | None) -> bool:
    """Whether a training step on the CPU runs layer by layer.

    That is the form of direct convolutions; Winograd's rolls through the image. The bounds are
    measured: Winograd is faster from some thousand pixels on, but for
    bfloat16 of many channels where the processor multiplies pairs of it.
    """
    lowered = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    dtype = x.dtype if x.dtype == torch.float64 else lowered
    if winograd is not None or dtype == torch.float64:
        return not winograd or dtype == torch.float64
    if dtype == torch.bfloat16 and _BF16_DOTS:
        return x.shape[1] >= 128 or x.numel() // x.shape[1] < 8192
    return x.numel() // x.shape[1] < 4096


@torch.library.register_fake("starlight::dense_block")
def _shape(x: Tensor, weights: list[Tensor], biases: list[Tensor], winograd: bool | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@torch.library.register_fake("starlight::dense_block_backward")
def _backward_shape(
    grad_out: Tensor, x: Tensor, weights: list[Tensor], biases: list[Tensor], winograd: bool | None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    grad_x = torch.empty_like(x, memory_format=torch.channels_last)
    return (
        grad_x,
        [weight.new_empty(weight.shape) for weight in weights],
        [bias.new_empty(bias.shape) for bias in biases],
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, biases, ctx.winograd = inputs
    ctx.save_for_backward(x, *weights, *biases)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], None]:
    x, *parameters = ctx.saved_tensors
    gradients = torch.ops.starlight.dense_block_backward(
        grad_out, x, parameters[:4], parameters[4:], ctx.winograd
    )
    return *gradients, None


torch.library.register_autograd("starlight::dense_block", _backward, setup_context=_keep)


@torch.library.register_fake("starlight::dense_layers")
def _layers_shape(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], winograd: bool
) -> tuple[Tensor, Tensor]:
    images, _, height, width = x.shape
    members = torch.empty(
        (images, 3 * weights[0].shape[0], height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    return torch.empty_like(x, memory_format=torch.channels_last), members


@torch.library.register_fake("starlight::dense_layers_backward")
def _layers_backward_shape(
    grad_out: Tensor,
    x: Tensor,
    members: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    winograd: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    return _backward_shape(grad_out, x, weights, biases, winograd)


def _keep_layers(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weights, biases, ctx.winograd = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for the members
    ctx.save_for_backward(x, output[1], *weights, *biases)


def _layers_backward(ctx: Any, grad_out: Tensor | None, _members: Any) -> tuple[Any, ...]:
    if grad_out is None:
        return None, [None] * 4, [None] * 4, None
    x, members, *parameters = ctx.saved_tensors
    gradients = torch.ops.starlight.dense_layers_backward(
        grad_out, x, members, parameters[:4], parameters[4:], ctx.winograd
    )
    return *gradients, None


torch.library.register_autograd(
    "starlight::dense_layers", _layers_backward, setup_context=_keep_layers
)


def _second_derivative(ctx: Any, *grads: Any) -> None:
    raise RuntimeError("dense_block: derivatives must be of first order, got a second one")


torch.library.register_autograd("starlight::dense_block_backward", _second_derivative)
torch.library.register_autograd("starlight::dense_layers_backward", _second_derivative)
