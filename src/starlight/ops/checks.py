"""Rules of the fused operators' arguments: `"{what}: {name} must {rule}, got {value}"`."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

DTYPES: Final = {
    "cpu": (torch.float32, torch.bfloat16, torch.float64),
    "cuda": (torch.float32, torch.float16, torch.bfloat16, torch.float64),
}
# Beside which parameters may be float32.
LOWERED: Final = (torch.float16, torch.bfloat16)


def check_input(what: str, x: Any) -> None:
    """Raise TypeError or ValueError unless x is [N, C, H, W], C >= 1, in a type of its device.

    The device is the CPU or, where the operators are built with CUDA, a GPU.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: x must be a tensor, got {type(x).__name__}")
    device = x.device.type
    dtypes = DTYPES.get(device, DTYPES["cpu"])
    if x.dtype not in dtypes:
        raise TypeError(
            f"{what}: x must be {' or '.join(map(_name, dtypes))}, got {_name(x.dtype)}"
        )
    if device not in ("cpu", "cuda" if cuda_built() else "cpu"):
        places = "the CPU or a GPU" if cuda_built() else "the CPU"
        raise TypeError(f"{what}: x must be on {places}, got {x.device}")
    _check_shape(what, x)


def check_parameter(what: str, name: str, value: Any, shape: Sequence[int], x: Tensor) -> None:
    """Raise TypeError or ValueError unless a weight or bias has the shape and goes with x.

    Its dtype is x's; float32 beside a lowered x too, and beside a float32 x that autocast lowers.
    """
    allowed = {x.dtype, torch.float32} if x.dtype in LOWERED else {x.dtype}
    _check_parameter(what, name, value, shape, x, allowed)


def check_skip(what: str, skip: Any, shape: Sequence[int], x: Tensor) -> None:
    """Raise TypeError or ValueError unless a skip is None, or has the shape and x's dtype.

    Under autocast float32 and its lower type stand beside each other: both are lowered.
    """
    if skip is None:
        return
    if not isinstance(skip, Tensor):
        raise TypeError(f"{what}: skip must be a tensor or None, got {type(skip).__name__}")
    allowed, device = {x.dtype}, x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        allowed |= {torch.float32, torch.get_autocast_dtype(device)}
    _check_parameter(what, "skip", skip, shape, x, allowed)


def check_integers(
    what: str, name: str, value: Any, shape: Sequence[int], x: Tensor, dtype: torch.dtype
) -> None:
    """Raise TypeError or ValueError unless an integer parameter has shape and dtype."""
    _check_parameter(what, name, value, shape, x, {dtype})


def check_integer_input(what: str, x: Any) -> None:
    """Raise TypeError or ValueError unless x is int8 [N, C, H, W], C >= 1, on a GPU."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: x must be a tensor, got {type(x).__name__}")
    if x.dtype != torch.int8:
        raise TypeError(f"{what}: x must be int8, got {_name(x.dtype)}")
    if x.device.type != "cuda" or not cuda_built():
        built = "" if cuda_built() else ", and the operators built with CUDA"
        raise TypeError(f"{what}: x must be on a GPU{built}, got {x.device}")
    _check_shape(what, x)


@torch.compiler.assume_constant_result
def cuda_built() -> bool:
    """Whether the loaded native module has the CUDA kernels."""
    return bool(torch.ops.starlight.cuda_built())


def _check_shape(what: str, x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"{what}: x must be [N, C, H, W] with C >= 1, got {list(x.shape)}")


def _check_parameter(
    what: str, name: str, value: Any, shape: Sequence[int], x: Tensor, allowed: set[torch.dtype]
) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{what}: {name} must be a tensor, got {type(value).__name__}")
    if value.dtype not in allowed or value.device != x.device:
        names = " or ".join(sorted(map(_name, allowed)))
        place = "the CPU" if x.device.type == "cpu" else str(x.device)
        raise TypeError(
            f"{what}: {name} must be {names} on {place} beside x in {_name(x.dtype)}, "
            f"got {_name(value.dtype)} on {value.device}"
        )
    if list(value.shape) != list(shape):
        raise ValueError(f"{what}: {name} must be {list(shape)}, got {list(value.shape)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
