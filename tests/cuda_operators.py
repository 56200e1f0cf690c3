"""The CUDA operators of csrc/ops/cuda on a device, with the meaning of the torch operators.

    operators = Emulated()
    out = operators.dense_block(x, weights, biases)
    assert operators.launches[-1].full_share >= 0.9

Every call is a device of its own. On the emulator a fault, or a byte of a result that was not
written, is an error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import emulator
import torch
from cases import Case, DenseBlockCase
from native_build import ROOT
from torch import Tensor

ELEMENTS: Final = {
    torch.float32: 0,
    torch.float16: 1,
    torch.bfloat16: 2,
    torch.float64: 3,
    torch.int8: 4,
}


class _Image(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_uint64),
        ("image_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("pixel_stride", ctypes.c_int64),
    ]


class _BlockCall(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "growth")),
        ("element", ctypes.c_int64),
        ("x", _Image),
        ("grad_out", _Image),
        ("out", _Image),
        *((name, ctypes.c_uint64 * 4) for name in ("weight", "bias", "shift")),
        ("join_shift", ctypes.c_uint64),
        *((name, ctypes.c_uint64 * 4) for name in ("grad_weight", "grad_bias")),
        ("workspace", ctypes.c_uint64),
    ]


class _StridedCall(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs")),
        ("relu", ctypes.c_int64),
        ("element", ctypes.c_int64),
        *((name, _Image) for name in ("x", "result", "grad_out", "out")),
        *((name, ctypes.c_uint64) for name in ("weight", "bias", "shift")),
        *((name, ctypes.c_uint64) for name in ("grad_weight", "grad_bias", "workspace")),
    ]


@cache
def library() -> ctypes.CDLL:
    return emulator.build([ROOT / "tests" / "csrc" / "cuda" / "operators.cpp"])


class Operators:
    """Forward and backward on devices of `new_device()`, which have the face of `emulator.Device`.

    `device`, `launches`: those of the latest call.
    """

    device: Any

    def __init__(self, new_device: Callable[[], Any]) -> None:
        self._new_device = new_device
        self.launches: list[emulator.Launch] = []

    def run(self, case: Case) -> Callable[[Sequence[Tensor]], Tensor]:
        """`case.fused` here, differentiable."""
        return lambda inputs: _Differentiable.apply(self, case, *inputs)

    # ---- dense block

    def fits(self, x: Tensor, growth: int) -> bool:
        """Whether the block runs in one pass."""
        call, answer = _BlockCall(), ctypes.c_int64()
        _, call.channels, call.height, call.width = x.shape
        call.images, call.growth, call.element = x.shape[0], growth, ELEMENTS[x.dtype]
        with self._new_device() as device:
            device.call("dense_fits", ctypes.addressof(call), ctypes.addressof(answer))
        return bool(answer.value)

    def dense_block(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        shifts: Sequence[Tensor] = (),
        join_shifts: Tensor | None = None,
    ) -> Tensor:
        """With shifts: the integer form of int8 x and weights, int32 biases."""
        call, buffers = self._block(x, weights, biases)
        for k, shift in enumerate(shifts):
            call.shift[k] = buffers.input(f"shifts[{k}]", shift)
        if join_shifts is not None:
            call.join_shift = buffers.input("join_shifts", join_shifts)
        out = _empty(x.shape, x.dtype)
        call.out = buffers.image("out", out, output=True)
        self._run("dense", call, buffers, backward=False)
        return out

    def dense_block_backward(
        self, grad_out: Tensor, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of x, of weights 0..3 and of biases 0..3."""
        call, buffers = self._block(x, weights, biases)
        grad_x = _empty(x.shape, x.dtype)
        call.grad_out = buffers.image("grad_out", grad_out)
        call.out = buffers.image("grad_x", grad_x, output=True)
        gradients = [torch.empty(value.shape, dtype=_sums(x)) for value in (*weights, *biases)]
        for k in range(4):
            call.grad_weight[k] = buffers.output(f"grad_weights[{k}]", gradients[k])
            call.grad_bias[k] = buffers.output(f"grad_biases[{k}]", gradients[4 + k])
        self._run("dense", call, buffers, backward=True)
        return [
            grad_x,
            *(
                gradient.to(value.dtype)
                for gradient, value in zip(gradients, (*weights, *biases), strict=True)
            ),
        ]

    def _block(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> tuple[_BlockCall, _Buffers]:
        call, buffers = _BlockCall(), _Buffers(self._new_device())
        call.images, call.channels, call.height, call.width = x.shape
        call.growth, call.element = weights[0].shape[0], ELEMENTS[x.dtype]
        call.x = buffers.image("x", x)
        for k in range(4):
            call.weight[k] = buffers.input(f"weights[{k}]", _parameter(x, weights[k]))
            call.bias[k] = buffers.input(f"biases[{k}]", _parameter(x, biases[k]))
        return call, buffers

    # ---- strided convolution

    def strided_conv(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        relu: bool = False,
        shifts: Tensor | None = None,
    ) -> Tensor:
        call, buffers = self._strided(x, weight, bias, relu)
        if shifts is not None:
            call.shift = buffers.input("shifts", shifts)
        rows, columns = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
        out = _empty((x.shape[0], weight.shape[0], rows, columns), x.dtype)
        call.out = buffers.image("out", out, output=True)
        self._run("strided", call, buffers, backward=False)
        return out

    def strided_conv_backward(
        self, grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None
    ) -> list[Tensor]:
        call, buffers = self._strided(x, weight, bias, out is not None)
        if out is not None:
            call.result = buffers.image("result", out)
        call.grad_out = buffers.image("grad_out", grad_out)
        grad_x = _empty(x.shape, x.dtype)
        call.out = buffers.image("grad_x", grad_x, output=True)
        grad_weight = torch.empty(weight.shape, dtype=_sums(x))
        grad_bias = torch.empty(bias.shape, dtype=_sums(x))
        call.grad_weight = buffers.output("grad_weight", grad_weight)
        call.grad_bias = buffers.output("grad_bias", grad_bias)
        self._run("strided", call, buffers, backward=True)
        return [grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)]

    def _strided(
        self, x: Tensor, weight: Tensor, bias: Tensor, relu: bool
    ) -> tuple[_StridedCall, _Buffers]:
        call, buffers = _StridedCall(), _Buffers(self._new_device())
        call.images, call.inputs, call.height, call.width = x.shape
        call.outputs, call.relu, call.element = weight.shape[0], relu, ELEMENTS[x.dtype]
        call.x = buffers.image("x", x)
        call.weight = buffers.input("weight", _parameter(x, weight))
        call.bias = buffers.input("bias", _parameter(x, bias))
        return call, buffers

    def _run(
        self, name: str, call: _BlockCall | _StridedCall, buffers: _Buffers, *, backward: bool
    ) -> None:
        with buffers.device as device:
            size = ctypes.c_int64()
            where = ctypes.addressof(call)
            device.call(f"{name}_workspace", where, int(backward), ctypes.addressof(size))
            workspace = torch.empty(size.value, dtype=torch.uint8)
            call.workspace = device.output("workspace", workspace)
            device.call(f"{name}_{'backward' if backward else 'forward'}", where)
            self._check(device, buffers.results)
            self.device, self.launches = device, device.launches()

    def _check(self, device: Any, results: Sequence[tuple[str, int]]) -> None:
        """Raise AssertionError unless the results, names and addresses, are whole."""


class Emulated(Operators):
    """On `emulator.Device(..., **options)`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(lambda: emulator.Device(library(), **options))

    def _check(self, device: Any, results: Sequence[tuple[str, int]]) -> None:
        for result, address in results:
            unwritten = device.unwritten_bytes(address)
            assert unwritten == 0, f"{result}: {unwritten} bytes were not written"


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operators: Operators, case: Case, *inputs: Tensor) -> Tensor:
        ctx.operators, ctx.case = operators, case
        if isinstance(case, DenseBlockCase):
            ctx.save_for_backward(*inputs)
            return operators.dense_block(inputs[0], inputs[1:5], inputs[5:9])
        out = operators.strided_conv(*inputs, case.activation)
        ctx.save_for_backward(*inputs, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        if isinstance(ctx.case, DenseBlockCase):
            weights, biases = parameters[:4], parameters[4:]
            gradients = ctx.operators.dense_block_backward(grad_out, x, weights, biases)
        else:
            weight, bias, out = parameters
            gradients = ctx.operators.strided_conv_backward(
                grad_out, x, weight, bias, out if ctx.case.activation else None
            )
        return (None, None, *gradients)


class _Buffers:
    """Memory of one call."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.results: list[tuple[str, int]] = []

    def input(self, name: str, data: Tensor) -> int:
        return self.device.input(name, data.contiguous())

    def output(self, name: str, data: Tensor) -> int:
        address = self.device.output(name, data)
        self.results.append((name, address))
        return address

    def image(self, name: str, data: Tensor, *, output: bool = False) -> _Image:
        """[N, C, H, W], channels side by side."""
        if data.shape[1] != 1 and data.stride(1) != 1:
            data = data.contiguous(memory_format=torch.channels_last)
        if output:
            address = self.output(name, data)
        else:
            address = self.device.input(name, data, misalignment=data.data_ptr() % 16)
        return _Image(address, data.stride(0), data.stride(2), data.stride(3))


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)


def _sums(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _parameter(x: Tensor, value: Tensor) -> Tensor:
    return value if x.dtype == torch.int8 else value.detach().to(_sums(x))
