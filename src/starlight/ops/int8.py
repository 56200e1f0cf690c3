"""The integer forms of the operators, equal to quant's golden model bit by bit; on a GPU alone.

docs/NUMERICS.md has the arithmetic, csrc/contract/intmath.h its one meaning in C. Importing this
module loads the native one; ImportError names the command that builds it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from starlight.ops import native
from starlight.ops.checks import check_integer_input, check_integers

native.load()


def dense_block_int8(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    shifts: Sequence[Tensor],
    join_shifts: Tensor,
) -> Tensor:
    """Dense residual block: three 3x3 with ReLU, a 1x1 where x joins; each layer rounds once.

    x: int8 [N, M, H, W] on a GPU, any strides; x and the three intermediates have one exponent.
    weights: int8, biases: int32, shapes as of `dense_block.dense_block`; shifts: int32 like the
        biases, requantisation of each output channel, 1..24.
    join_shifts: int32 [M], 0..20, the left shift with which x joins the last layer's sums.
    Returns int8 [N, M, H, W], channels last. That no sum leaves int32 is proven where the layers
    come from (docs/NUMERICS.md); shifts are not read back to be checked.
    Raises TypeError for a dtype or device, ValueError for a shape.
    """
    what = "dense_block_int8"
    check_integer_input(what, x)
    for name, values in (("weights", weights), ("biases", biases), ("shifts", shifts)):
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
        check_integers(what, f"weights[{k}]", weights[k], shape, x, torch.int8)
        check_integers(what, f"biases[{k}]", biases[k], (outputs,), x, torch.int32)
        check_integers(what, f"shifts[{k}]", shifts[k], (outputs,), x, torch.int32)
    check_integers(what, "join_shifts", join_shifts, (width,), x, torch.int32)
    return torch.ops.starlight.dense_block_int8(
        x, list(weights), list(biases), list(shifts), join_shifts
    )


def strided_conv_int8(
    x: Tensor, weight: Tensor, bias: Tensor, shifts: Tensor, relu: bool = False
) -> Tensor:
    """3x3, stride 2, zero padding 1, one requantisation, whose lower end is 0 with `relu`.

    x: int8 [N, C, H, W] on a GPU, any strides. weight: int8 [K, C, 3, 3]; bias, shifts: int32 [K].
    Returns int8 [N, K, ceil(H / 2), ceil(W / 2)], channels last.
    Raises TypeError for a dtype or device, ValueError for a shape.
    """
    what = "strided_conv_int8"
    check_integer_input(what, x)
    if weight.ndim != 4 or weight.shape[0] < 1:
        raise ValueError(
            f"{what}: weight must be [K, C, 3, 3] with K >= 1, got {list(weight.shape)}"
        )
    outputs = weight.shape[0]
    check_integers(what, "weight", weight, (outputs, x.shape[1], 3, 3), x, torch.int8)
    check_integers(what, "bias", bias, (outputs,), x, torch.int32)
    check_integers(what, "shifts", shifts, (outputs,), x, torch.int32)
    return torch.ops.starlight.strided_conv_int8(x, weight, bias, shifts, relu)


@torch.library.register_fake("starlight::dense_block_int8")
def _block_shape(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    shifts: list[Tensor],
    join_shifts: Tensor,
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@torch.library.register_fake("starlight::strided_conv_int8")
def _strided_shape(x: Tensor, weight: Tensor, bias: Tensor, shifts: Tensor, relu: bool) -> Tensor:
    images, _, height, width = x.shape
    return torch.empty(
        (images, weight.shape[0], (height + 1) // 2, (width + 1) // 2),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
