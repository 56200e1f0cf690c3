"""Rules of the fused operators' arguments: `"{what}: {name} must {rule}, got {value}"`."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float64)


def check_input(what: str, x: Any) -> None:
    """Raise TypeError or ValueError unless x is [N, C, H, W], C >= 1, on the CPU, in `DTYPES`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: x must be a tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(
            f"{what}: x must be {' or '.join(map(_name, DTYPES))}, got {_name(x.dtype)}"
        )
    if x.device.type != "cpu":
        raise TypeError(f"{what}: x must be on the CPU, got {x.device}")
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"{what}: x must be [N, C, H, W] with C >= 1, got {list(x.shape)}")


def check_parameter(what: str, name: str, value: Any, shape: Sequence[int], x: Tensor) -> None:
    """Raise TypeError or ValueError unless a weight or bias has the shape and goes with x.

    Its dtype is x's; float32 beside a bfloat16 x too, and beside a float32 x that autocast lowers.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{what}: {name} must be a tensor, got {type(value).__name__}")
    allowed = {x.dtype, torch.float32} if x.dtype == torch.bfloat16 else {x.dtype}
    if value.dtype not in allowed or value.device.type != "cpu":
        names = " or ".join(sorted(map(_name, allowed)))
        raise TypeError(
            f"{what}: {name} must be {names} on the CPU beside x in {_name(x.dtype)}, "
            f"got {_name(value.dtype)} on {value.device}"
        )
    if list(value.shape) != list(shape):
        raise ValueError(f"{what}: {name} must be {list(shape)}, got {list(value.shape)}")


def check_skip(what: str, skip: Any, shape: Sequence[int], x: Tensor) -> None:
    """Raise TypeError or ValueError unless a skip is None, or has the shape and x's dtype.

    Under autocast float32 and bfloat16 stand beside each other: both are lowered.
    """
    if skip is None:
        return
    if not isinstance(skip, Tensor):
        raise TypeError(f"{what}: skip must be a tensor or None, got {type(skip).__name__}")
    allowed = {x.dtype}
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        allowed = {torch.float32, torch.bfloat16}
    if skip.dtype not in allowed or skip.device.type != "cpu":
        names = " or ".join(sorted(map(_name, allowed)))
        raise TypeError(
            f"{what}: skip must be {names} on the CPU beside x in {_name(x.dtype)}, "
            f"got {_name(skip.dtype)} on {skip.device}"
        )
    if list(skip.shape) != list(shape):
        raise ValueError(f"{what}: skip must be {list(shape)}, got {list(skip.shape)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
