"""Arguments that the fused operators do not take: the message has the rule and the value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Conv3x3Case, DenseBlockCase, StridedConvCase, UpsampleCase

from starlight.ops import native
from starlight.ops.conv3x3 import conv3x3
from starlight.ops.dense_block import dense_block
from starlight.ops.strided_conv import strided_conv
from starlight.ops.upsample import upsample

BLOCK = DenseBlockCase(4, 2, 5, 6).inputs(0)
STRIDED = StridedConvCase(4, 6, 5, 6).inputs(0)
CONV = Conv3x3Case(4, 6, 5, 6).inputs(0)
UP = UpsampleCase(4, 6, 5, 6).inputs(0)


def block(index: int, value: Any) -> list[Any]:
    return [*BLOCK[:index], value, *BLOCK[index + 1 :]]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (block(0, [1.0]), TypeError, "dense_block: x must be a tensor, got list"),
        (block(0, BLOCK[0].half()), TypeError, "x must be float32 or .*, got float16"),
        (block(0, BLOCK[0].to("meta")), TypeError, "x must be on the CPU, got meta"),
        (block(0, BLOCK[0][0]), ValueError, r"x must be \[N, C, H, W\] .*, got \[4, 5, 6\]"),
        (block(0, BLOCK[0][:, :0]), ValueError, r"C >= 1, got \[1, 0, 5, 6\]"),
        (block(1, BLOCK[1][0]), ValueError, r"weights\[0\] must be \[G, M, 3, 3\] .*\[4, 3, 3\]"),
        (block(1, BLOCK[1][:0]), ValueError, r"G >= 1, got \[0, 4, 3, 3\]"),
        (block(2, BLOCK[2][:, 1:]), ValueError, r"weights\[1\] must be \[2, 6, 3, 3\], got \[2, 5"),
        (block(4, BLOCK[4].double()), TypeError, r"weights\[3\] must be float32 .* got float64"),
        (block(6, BLOCK[6][:1]), ValueError, r"biases\[1\] must be \[2\], got \[1\]"),
        (block(8, BLOCK[8].bfloat16()), TypeError, r"biases\[3\] must be float32 .*got bfloat16"),
        (block(8, None), TypeError, r"biases\[3\] must be a tensor, got NoneType"),
    ],
    ids=str,
)
def test_dense_block_refuses(inputs: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dense_block(inputs[0], inputs[1:5], inputs[5:])


def test_dense_block_has_four_convolutions() -> None:
    with pytest.raises(ValueError, match="dense_block: weights must be 4, got 3"):
        dense_block(BLOCK[0], BLOCK[1:4], BLOCK[5:])
    with pytest.raises(ValueError, match="dense_block: biases must be 4, got 5"):
        dense_block(BLOCK[0], BLOCK[1:5], BLOCK[4:])


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, STRIDED[0].int(), TypeError, "strided_conv: x must be float32 or .*, got int32"),
        (1, STRIDED[1][..., 0], ValueError, r"weight must be \[K, C, 3, 3\] .*, got \[6, 4, 3\]"),
        (1, STRIDED[1][:, :3], ValueError, r"weight must be \[6, 4, 3, 3\], got \[6, 3, 3, 3\]"),
        (2, STRIDED[2][:5], ValueError, r"bias must be \[6\], got \[5\]"),
        (2, STRIDED[2].double(), TypeError, "bias must be float32 .* got float64"),
    ],
)
def test_strided_conv_refuses(index: int, value: Any, error: type[Exception], message: str) -> None:
    inputs = [*STRIDED[:index], value, *STRIDED[index + 1 :]]
    with pytest.raises(error, match=message):
        strided_conv(*inputs)


@pytest.mark.parametrize(
    ("run", "index", "value", "error", "message"),
    [
        (conv3x3, 0, CONV[0].int(), TypeError, "conv3x3: x must be float32 or .*, got int32"),
        (conv3x3, 1, CONV[1][0], ValueError, r"weight must be \[K, C, 3, 3\] .*, got \[4, 3, 3\]"),
        (conv3x3, 1, CONV[1][:, :3], ValueError, r"weight must be \[6, 4, 3, 3\], got \[6, 3, 3"),
        (conv3x3, 2, CONV[2].double(), TypeError, "bias must be float32 .* got float64"),
        (conv3x3, 3, 1.0, TypeError, "skip must be a tensor or None, got float"),
        (conv3x3, 3, CONV[3].double(), TypeError, "skip must be float32 .* got float64"),
        (
            conv3x3,
            3,
            CONV[3][:, :5],
            ValueError,
            r"skip must be \[1, 6, 5, 6\], got \[1, 5, 5, 6\]",
        ),
        (upsample, 0, UP[0][0], ValueError, r"upsample: x must be \[N, C, H, W\] .*\[4, 5, 6\]"),
        (upsample, 1, UP[1][:6], ValueError, r"weight must be \[4 K, C, 1, 1\] .*\[6, 4, 1, 1\]"),
        (upsample, 1, UP[1][:, :3], ValueError, r"weight must be \[24, 4, 1, 1\], got \[24, 3"),
        (upsample, 2, UP[2][:5], ValueError, r"bias must be \[24\], got \[5\]"),
        (upsample, 3, UP[0], ValueError, r"skip must be \[1, 6, 10, 12\], got \[1, 4, 5, 6\]"),
    ],
)
def test_convolutions_with_a_skip_refuse(
    run: Callable[..., Any], index: int, value: Any, error: type[Exception], message: str
) -> None:
    inputs = [*(CONV if run is conv3x3 else UP)]
    inputs[index] = value
    with pytest.raises(error, match=message):
        run(*inputs)


def test_the_registered_operators_guard_memory_themselves() -> None:
    """Reached by way of torch.ops, past the checks of the Python face."""
    raw = torch.ops.starlight
    with pytest.raises(ValueError, match=r"weights must have shape \[2, 6, 3, 3\]"):
        raw.dense_block(BLOCK[0], block(2, BLOCK[1])[1:5], BLOCK[5:], True)
    with pytest.raises(ValueError, match="must be 4 each, got 3 and 4"):
        raw.dense_block(BLOCK[0], BLOCK[1:4], BLOCK[5:], True)
    with pytest.raises(ValueError, match=r"grad_out must have shape \[1, 4, 5, 6\]"):
        raw.dense_block_backward(BLOCK[0][:, :2], BLOCK[0], BLOCK[1:5], BLOCK[5:], True)
    with pytest.raises(TypeError, match="grad_out must be Float as x is, got Double"):
        raw.dense_block_backward(BLOCK[0].double(), BLOCK[0], BLOCK[1:5], BLOCK[5:], True)
    members = torch.zeros(1, 5, 5, 6)
    with pytest.raises(ValueError, match=r"members must have shape \[1, 6, 5, 6\]"):
        raw.dense_layers_backward(BLOCK[0], BLOCK[0], members, BLOCK[1:5], BLOCK[5:], False)
    with pytest.raises(TypeError, match="x must be float32, bfloat16 or float64, got Half"):
        raw.dense_block(BLOCK[0].half(), BLOCK[1:5], BLOCK[5:], True)
    with pytest.raises(ValueError, match=r"bias must have shape \[6\]"):
        raw.strided_conv(*STRIDED[:2], STRIDED[2][:3], False, None)
    grad_out = torch.zeros(1, 6, 3, 3)
    with pytest.raises(ValueError, match=r"out must have shape \[1, 6, 3, 3\]"):
        raw.strided_conv_backward(grad_out, *STRIDED, grad_out[..., :2])
    with pytest.raises(ValueError, match=r"weight must have shape \[6, 4, 3, 3\]"):
        raw.conv3x3(CONV[0], CONV[1][..., :2], *CONV[2:], None)
    with pytest.raises(ValueError, match=r"skip must have shape \[1, 6, 5, 6\]"):
        raw.conv3x3(*CONV[:3], CONV[3][:, :5], None)
    with pytest.raises(ValueError, match=r"weight must be \[4 K, C, 1, 1\] .*\[6, 4, 1, 1\]"):
        raw.upsample(UP[0], UP[1][:6], *UP[2:])
    with pytest.raises(TypeError, match="skip must be Float as x is, got Double"):
        raw.upsample(*UP[:3], UP[3].double())
    with pytest.raises(ValueError, match=r"grad_out must have shape \[1, 6, 10, 12\]"):
        raw.upsample_backward(UP[3][..., :5], *UP[:3])


@pytest.mark.parametrize(
    ("run", "values"),
    [
        (lambda *v: dense_block(v[0], v[1:5], v[5:]), BLOCK),
        (strided_conv, STRIDED),
        (upsample, UP),
    ],
    ids=["dense_block", "strided_conv", "upsample"],
)
def test_second_derivatives_are_refused(
    run: Callable[..., torch.Tensor], values: list[torch.Tensor]
) -> None:
    x = values[0].clone().requires_grad_()
    out = run(x, *values[1:])
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="derivatives must be of first order, got a second"):
        first.sum().backward()


def test_a_missing_module_names_the_command_that_builds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    native.load.cache_clear()
    assert not native.built()
    with pytest.raises(ImportError, match=r"must be built, got none; `python setup\.py build_ext"):
        native.load()
    (tmp_path / f"_library{native.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
    with pytest.raises(ImportError, match="native module must fit torch"):
        native.load()
