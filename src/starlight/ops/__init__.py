"""Fused operators of the denoiser: the Python face of csrc/ops (docs/KERNELS.md).

    reference      what the operators mean, in plain PyTorch
    dense_block, strided_conv, conv3x3, upsample
                   the fused ones: checks, shapes, gradients, autocast around the native kernels;
                   importing one loads the native module
    int8           the integer forms, on a GPU
    memory         what they keep of memory from call to call
    native         where that module lies, and the command that builds it

A network is told its `Backend` when it is made; importing this package loads nothing native.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from starlight.ops import native, reference

Backend = Literal["reference", "fused"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True)
class Operators:
    """The operators of one backend; `reference` has their meaning."""

    dense_block: Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]
    strided_conv: Callable[[Tensor, Tensor, Tensor], Tensor]
    conv3x3: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    upsample: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def operators(backend: Backend) -> Operators:
    """Raises ValueError for an unknown backend, ImportError when `fused` is not built."""
    if backend == "reference":
        return Operators(
            reference.dense_block, reference.strided_conv, reference.conv3x3, reference.upsample
        )
    if backend == "fused":
        from starlight.ops.conv3x3 import conv3x3
        from starlight.ops.dense_block import dense_block
        from starlight.ops.strided_conv import strided_conv
        from starlight.ops.upsample import upsample

        return Operators(dense_block, strided_conv, conv3x3, upsample)
    raise ValueError(f"operators: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def built_backend() -> Backend:
    """`fused` where it is built; else `reference`, with a warning that says how to build it."""
    if native.built():
        return "fused"
    warnings.warn(
        f"operators: backend is reference, fused is not built; {native.BUILD}", stacklevel=2
    )
    return "reference"
