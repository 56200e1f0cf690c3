"""The fused operators against their meaning: values, gradients, torch's own checks, layouts.

Float tolerance is measured: error against float64 beside plain PyTorch's in the same dtype.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from cases import (
    ERROR_RATIO,
    ERROR_RATIO_WINOGRAD,
    ERROR_WINOGRAD,
    ERROR_WINOGRAD_CONV3X3,
    ERROR_WINOGRAD_STRIDED,
    SMALL,
    WIDE,
    Case,
    Conv3x3Case,
    DenseBlockCase,
    Run,
    StridedConvCase,
    UpsampleCase,
    draws,
    error,
    exact,
    gradients,
    hold_against_pytorch,
    hold_to_rounding,
    side_by_side,
)
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)

cases = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
one_of_each = pytest.mark.parametrize(
    "case",
    [
        DenseBlockCase(16, 8, 6, 9, images=2),
        StridedConvCase(8, 16, 7, 6, images=2),
        Conv3x3Case(8, 16, 7, 6, images=2),
        UpsampleCase(8, 16, 7, 6, images=2),
    ],
    ids=lambda case: case.op,
)


def nearest_to_a_kink(inputs: Sequence[Tensor]) -> float:
    """The least input of a dense block's ReLUs, as a share of their root mean square."""
    x, *parameters = [value.double() for value in inputs]
    least = torch.inf
    for weight, bias in zip(parameters[:3], parameters[4:7], strict=True):
        before = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        least = min(least, float(before.abs().min() / before.square().mean().sqrt()))
        x = torch.cat([x, before.relu()], 1)
    return least


def test_pixels_enough_take_winograd_and_inference_sees_every_change() -> None:
    case = DenseBlockCase(4, 4, 64, 128)
    x, *parameters = case.inputs(1)
    with torch.inference_mode():
        assert torch.equal(
            case.fused([x, *parameters]), case.fused([x, *parameters], winograd=True)
        )
        first = case.fused([x, *parameters])
        parameters[2].data[0, 0, 0, 0] += 1
        second = case.fused([x, *parameters])
    assert torch.equal(second, case.fused([x, *parameters]))
    assert not torch.equal(first, second)
    few = [x[..., :60, :64], *parameters]
    assert torch.equal(case.fused(few), case.fused(few, winograd=False))
    assert not torch.equal(case.fused(few), case.fused(few, winograd=True))
    with torch.inference_mode():  # what is packed is kept: fewer are enough
        assert torch.equal(case.fused(few), case.fused(few, winograd=True))
    direct = gradients(lambda inputs: case.fused(inputs, winograd=False), few)
    for ours, value in zip(gradients(case.fused, few), direct, strict=True):
        assert torch.equal(ours, value)


def test_strided_convolutions_take_winograd_where_it_pays() -> None:
    case = StridedConvCase(16, 17, 64, 128)
    x, *parameters = case.inputs(1)
    few = [x[..., :64], *parameters]
    assert not torch.equal(case.fused(few), case.fused(few, winograd=True))
    assert torch.equal(case.fused(few), case.fused(few, winograd=False))
    for inputs in ([x, *parameters], [x.bfloat16(), *parameters]):
        assert torch.equal(case.fused(inputs), case.fused(inputs, winograd=True))
    with torch.inference_mode():
        assert torch.equal(case.fused(few), case.fused(few, winograd=True))
        tiny = [x[..., :63], *parameters]
        assert torch.equal(case.fused(tiny), case.fused(tiny, winograd=False))


def test_inference_keeps_packed_weights_of_each_dtype_apart() -> None:
    """bfloat16 takes the parameters of float32, but may read them in another order."""
    case = StridedConvCase(33, 20, 9, 12)
    inputs = case.inputs(4)
    lowered = [inputs[0].bfloat16(), *inputs[1:]]
    plain = [case.fused(values) for values in (inputs, lowered)]
    with torch.inference_mode():
        for _ in range(2):
            for values, wanted in zip((inputs, lowered), plain, strict=True):
                assert torch.equal(case.fused(values), wanted)


@pytest.mark.parametrize("case", [*SMALL, *WIDE], ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_is_at_most_twice_that_of_pytorch(case: Case, dtype: torch.dtype) -> None:
    run: Run = case.fused
    if not isinstance(case, UpsampleCase):
        run = lambda inputs: case.fused(inputs, winograd=False)  # noqa: E731
    hold_against_pytorch(case, run, 0, dtype, ERROR_RATIO, draws(case))


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in SMALL
        if isinstance(case, DenseBlockCase | StridedConvCase) and case.width > 1
    ],
    ids=lambda case: case.name,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_winograd_stays_within_its_bound(
    case: DenseBlockCase | StridedConvCase, dtype: torch.dtype
) -> None:
    run = lambda inputs: case.fused(inputs, winograd=True)  # noqa: E731
    ratio = ERROR_RATIO_WINOGRAD if dtype == torch.float32 else ERROR_RATIO
    hold_against_pytorch(case, run, 1, dtype, ratio, draws(case))


@pytest.mark.parametrize(
    "case", [case for case in SMALL if isinstance(case, Conv3x3Case)], ids=lambda case: case.name
)
def test_a_convolution_by_winograd_stays_within_its_bound(case: Conv3x3Case) -> None:
    inputs = case.inputs(1)
    assert error(case.fused(inputs, winograd=True), exact(case, inputs)[0]) <= (
        ERROR_WINOGRAD_CONV3X3
    )
    inputs = case.inputs(1, torch.bfloat16)
    wanted = exact(case, inputs)[0]
    assert error(case.fused(inputs, winograd=True), wanted) <= ERROR_RATIO * error(
        case.reference(inputs), wanted
    )


@cases
def test_float64_is_the_reference_but_for_the_order_of_additions(case: Case) -> None:
    inputs = case.inputs(2, torch.float64)
    got = [case.fused(inputs), *gradients(case.fused, inputs)]
    hold_to_rounding(exact(case, inputs), got)


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 20),
    st.integers(0, 40),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@example(16, 8, 0, 5, 1, False, 0)
@example(16, 8, 5, 0, 1, False, 0)
@example(16, 8, 5, 5, 0, False, 0)
def test_any_size_in_float64(
    width: int, other: int, rows: int, columns: int, images: int, activation: bool, seed: int
) -> None:
    for case in (
        DenseBlockCase(width, other, rows, columns, images),
        StridedConvCase(width, other, rows, columns, images, activation),
        Conv3x3Case(width, other, rows, columns, images, activation),
        UpsampleCase(width, other, rows, columns, images, activation),
    ):
        inputs = case.inputs(seed, torch.float64)
        hold_to_rounding(exact(case, inputs), [case.fused(inputs), *gradients(case.fused, inputs)])


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 60),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_any_size_by_winograd(
    width: int, growth: int, rows: int, columns: int, images: int, seed: int
) -> None:
    strided = StridedConvCase(width, growth, rows, columns, images)
    inputs = strided.inputs(seed)
    wide = [value.double() for value in inputs]
    got = strided.fused(inputs, winograd=True).double() - strided.reference(wide)
    # Beside the sum of what is added, which does not cancel.
    added = strided.reference([value.abs() for value in wide])
    assert got.square().mean().sqrt() <= ERROR_WINOGRAD_STRIDED * added.square().mean().sqrt()

    case = DenseBlockCase(width, growth, rows, columns, images)
    run = lambda inputs: case.fused(inputs, winograd=True)  # noqa: E731
    wanted, got = [], []
    for draw in draws(case):
        inputs = case.inputs(seed + draw)
        if nearest_to_a_kink(inputs) > 1e-5:  # else rounding may move a gradient by a whole step
            wanted.append(exact(case, inputs, draw))
            got.append([run(inputs), *gradients(run, inputs, draw)])
    assume(wanted)
    for value, ours in zip(side_by_side(wanted), side_by_side(got), strict=True):
        assert error(ours, value) <= ERROR_WINOGRAD if value.any() else not ours.any()


@one_of_each
@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
def test_opcheck(case: Case, dtype: torch.dtype) -> None:
    inputs = [value.requires_grad_() for value in case.inputs(3, dtype)]
    torch.library.opcheck(*_raw(case, inputs))


@pytest.mark.parametrize(
    "case",
    [
        DenseBlockCase(16, 8, 6, 9, images=2),
        StridedConvCase(8, 16, 7, 6, images=2),
        UpsampleCase(8, 16, 7, 6, images=2, skip=False),
    ],
    ids=lambda case: case.op,
)
def test_opcheck_of_the_backward_operators(case: Case) -> None:
    inputs = case.inputs(3)
    out = case.reference(inputs)
    raw = torch.ops.starlight
    if isinstance(case, DenseBlockCase):
        arguments: tuple[Any, ...] = (out, inputs[0], inputs[1:5], inputs[5:9], True)
        torch.library.opcheck(raw.dense_block_backward.default, arguments)
    elif isinstance(case, StridedConvCase):
        for result in (None, out.relu()):
            torch.library.opcheck(raw.strided_conv_backward.default, (out, *inputs, result))
    else:
        torch.library.opcheck(raw.upsample_backward.default, (out, *inputs))


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("growth", [8, 5])
def test_what_is_kept_is_what_the_backward_operator_else_computes_again(
    growth: int, winograd: bool
) -> None:
    case = DenseBlockCase(16, growth, 7, 9, images=2)
    x, *parameters = case.inputs(3)
    weights, biases = parameters[:4], parameters[4:]
    case.fused([x, *parameters])  # loads the operators
    raw = torch.ops.starlight
    torch.library.opcheck(raw.dense_layers.default, (x, weights, biases, winograd))
    out, members = raw.dense_layers(x, weights, biases, winograd)
    assert torch.equal(out, raw.dense_block(x, weights, biases, winograd)) or not winograd
    assert error(out, case.reference([x.double(), *[p.double() for p in parameters]])) <= 1e-6
    arguments = (out, x, members, weights, biases, winograd)
    torch.library.opcheck(raw.dense_layers_backward.default, arguments)
    kept, *lists = raw.dense_layers_backward(*arguments)
    again, *others = raw.dense_block_backward(out, x, weights, biases, winograd)
    assert torch.equal(kept, again)
    for ours, other in zip(chain(*lists), chain(*others), strict=True):
        assert torch.equal(ours, other)


def _raw(case: Case, inputs: Sequence[Tensor]) -> tuple[Any, tuple[Any, ...]]:
    """The registered operator and its arguments."""
    case.fused(inputs)  # loads it
    if isinstance(case, DenseBlockCase):
        arguments = (inputs[0], inputs[1:5], inputs[5:9], True)
        return torch.ops.starlight.dense_block.default, arguments
    if isinstance(case, StridedConvCase):
        return torch.ops.starlight.strided_conv.default, (*inputs, case.activation, True)
    if isinstance(case, Conv3x3Case):
        return torch.ops.starlight.conv3x3.default, (*inputs, True)
    return torch.ops.starlight.upsample.default, tuple(inputs)


@pytest.mark.parametrize(
    "case",
    [
        DenseBlockCase(3, 2, 4, 5, images=2),
        DenseBlockCase(2, 4, 3, 2),
        StridedConvCase(2, 3, 4, 5, images=2),
        StridedConvCase(2, 3, 5, 4, activation=True),
        Conv3x3Case(2, 3, 4, 5, images=2),
        Conv3x3Case(3, 2, 4, 5, skip=False),
        UpsampleCase(2, 3, 4, 5, images=2),
        UpsampleCase(3, 1, 2, 3, skip=False),
    ],
    ids=lambda case: case.name,
)
def test_gradcheck(case: Case) -> None:
    inputs = [value.requires_grad_() for value in case.inputs(4, torch.float64)]
    assert torch.autograd.gradcheck(lambda *values: case.fused(values), inputs)


@one_of_each
def test_only_the_gradients_asked_for_are_given(case: Case) -> None:
    inputs = case.inputs(5)
    inputs[0].requires_grad_()
    case.fused(inputs).sum().backward()
    assert inputs[0].grad is not None
    assert all(value.grad is None for value in inputs[1:])


@one_of_each
def test_compiles_without_a_break_and_follows_the_size(case: Case) -> None:
    torch.compiler.reset()
    compiled = torch.compile(case.fused, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, columns in ((6, 8), (9, 5)):
        inputs = type(case)(*_channels(case), rows, columns).inputs(6)
        assert torch.equal(compiled(inputs), case.fused(inputs))
        for ours, eager in zip(
            gradients(compiled, inputs), gradients(case.fused, inputs), strict=True
        ):
            assert torch.equal(ours, eager)


def _channels(case: Case) -> tuple[int, int]:
    return case.width, case.growth if isinstance(case, DenseBlockCase) else case.outputs


@one_of_each
def test_autocast_lowers_activations_and_keeps_parameters(case: Case) -> None:
    inputs = [value.requires_grad_() for value in case.inputs(7)]
    with torch.autocast("cpu", torch.bfloat16):
        out = case.fused(inputs)
    assert out.dtype == torch.bfloat16
    lowered = [
        value.bfloat16() if index in case.activations else value
        for index, value in enumerate(inputs)
    ]
    assert torch.equal(out, case.fused(lowered))
    out.float().sum().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in inputs)


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The values of x behind other strides."""
    images, channels, rows, columns = x.shape
    wide = torch.zeros(images, rows + 3, columns + 5, channels + 4)
    wide[:, 2:-1, 1:-4, 3:-1] = x.permute(0, 2, 3, 1)
    return {
        "contiguous": x.contiguous(),
        "slice of a larger channels-last": wide[:, 2:-1, 1:-4, 3:-1].permute(0, 3, 1, 2),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "every second": x.repeat_interleave(2, 3)[..., ::2],
    }


@one_of_each
def test_strides_change_nothing(case: Case) -> None:
    x, *parameters = case.inputs(8)
    wanted = [case.fused([x, *parameters]), *gradients(case.fused, [x, *parameters])]
    for name, view in layouts(x).items():
        assert torch.equal(view, x)
        out = case.fused([view, *parameters])
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(out, wanted[0]), name
        leaf = view.detach().requires_grad_()
        (grad_x,) = torch.autograd.grad(
            case.fused([leaf, *parameters]), leaf, _grad_out(wanted[0]).expand_as(wanted[0])
        )
        (plain,) = torch.autograd.grad(
            case.fused([x.requires_grad_(), *parameters]), x, torch.ones_like(wanted[0])
        )
        assert torch.equal(grad_x, plain), name
        x.requires_grad_(False)
    channels_last = [
        value.contiguous(memory_format=torch.channels_last) for value in parameters[:1]
    ]
    assert torch.equal(case.fused([x, *channels_last, *parameters[1:]]), wanted[0])


def _grad_out(out: Tensor) -> Tensor:
    """Ones, without memory of their own."""
    return torch.ones((), dtype=out.dtype)


def test_one_value_for_all_pixels_of_an_expanded_input() -> None:
    case = DenseBlockCase(4, 4, 6, 7)
    _, *parameters = case.inputs(9)
    x = torch.randn(1, 4, 1, 1).expand(1, 4, 6, 7)
    assert torch.equal(case.fused([x, *parameters]), case.fused([x.clone(), *parameters]))


@one_of_each
def test_inputs_are_left_alone(case: Case) -> None:
    inputs = case.inputs(10)
    before = [value.clone() for value in inputs]
    gradients(case.fused, inputs)
    case.fused(inputs)
    assert all(torch.equal(value, copy) for value, copy in zip(inputs, before, strict=True))


@one_of_each
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_only_the_order_of_additions(case: Case, threads: int) -> None:
    inputs = case.inputs(11, torch.float64)
    wanted = [case.fused(inputs), *gradients(case.fused, inputs)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = [case.fused(inputs), *gradients(case.fused, inputs)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got[0], wanted[0])
    hold_to_rounding(wanted, got)
    for ours, value in zip(got, wanted, strict=True):
        if isinstance(case, DenseBlockCase):  # layers are shared by pixels and channels: no joins
            assert torch.equal(ours, value)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_move_no_bit_of_strided_convolutions_by_winograd(threads: int) -> None:
    case = StridedConvCase(20, 40, 37, 90, images=2)
    inputs = case.inputs(11)
    before = torch.get_num_threads()
    wanted = case.fused(inputs, winograd=True)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(case.fused(inputs, winograd=True), wanted)
    finally:
        torch.set_num_threads(before)


@one_of_each
def test_nan_and_infinity_come_through(case: Case) -> None:
    x, *parameters = case.inputs(12)
    x[0, 0, 3, 3] = float("nan")
    x[1, 0, 3, 3] = float("inf")
    assert case.fused([x, *parameters])[0].isnan().any()
    assert not case.fused([x, *parameters])[1].isfinite().all()
