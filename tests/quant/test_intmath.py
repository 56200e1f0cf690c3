"""The arithmetic oracle against exact rational arithmetic and a plain integer convolution."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds

from quant import contract, intmath

ACC_MIN, ACC_MAX = -contract.ACCUMULATOR_MAX - 1, contract.ACCUMULATOR_MAX
accumulators = st.integers(ACC_MIN, ACC_MAX) | st.sampled_from(
    [
        ACC_MIN,
        ACC_MAX,
        *(sign * 2**k + d for k in range(31) for d in (-1, 0, 1) for sign in (-1, 1)),
    ]
)
shifts = st.integers(contract.SHIFT_MIN, contract.SHIFT_MAX)


def rounded(acc: int, shift: int) -> int:
    """Nearest integer to acc / 2^shift, the greater one on a tie."""
    return math.floor(Fraction(acc, 2**shift) + Fraction(1, 2))


@given(value=st.integers(-(2**62), 2**62), shift=st.integers(0, 62))
def test_floor_shift_is_the_floor(value: int, shift: int) -> None:
    assert intmath.floor_shift(value, shift) == math.floor(Fraction(value, 2**shift))


@given(acc=accumulators, shift=shifts)
@example(acc=-1, shift=1)  # -0.5 goes up to 0
@example(acc=-3, shift=1)  # -1.5 goes up to -1
@example(acc=ACC_MAX, shift=1)
@example(acc=ACC_MIN, shift=24)
def test_requantise_rounds_once_and_saturates(acc: int, shift: int) -> None:
    expected = rounded(acc, shift)
    assert intmath.rounded_shift(acc, shift) == expected
    assert intmath.requantise(acc, shift) == min(max(expected, -128), 127)
    assert intmath.requantise(acc, shift, relu=True) == min(max(expected, 0), 127)


@given(pixel=st.integers(0, 255), acc=accumulators, shift=shifts)
def test_tail_subtracts_from_the_pixel(pixel: int, acc: int, shift: int) -> None:
    expected = min(max(pixel - rounded(acc, shift), 0), 255)
    assert intmath.tail_pixels(pixel, acc, shift) == expected


def test_ties_go_toward_positive_infinity() -> None:
    acc = np.array([-24, -20, -12, -4, 4, 12, 20])  # -3, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5 at s = 3
    assert intmath.requantise(acc, 3).tolist() == [-3, -2, -1, 0, 1, 2, 3]


def test_requantise_takes_a_shift_per_channel() -> None:
    acc = np.array([[100, 100, 100], [-100, -100, -1000]])
    result = intmath.requantise(acc, np.array([1, 3, 2]))
    assert result.dtype == np.int8
    assert result.tolist() == [[50, 13, 25], [-50, -12, -128]]


@given(
    acc=st.integers(-(2**30), 2**30),
    q=st.integers(-128, 127),
    shift=st.integers(contract.JOIN_SHIFT_MIN, contract.JOIN_SHIFT_MAX),
)
def test_join_is_exact(acc: int, q: int, shift: int) -> None:
    assert intmath.join(acc, q, shift) == acc + q * 2**shift


def test_image_enters_and_leaves_exactly() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    q = intmath.quantise_image(pixels)
    assert q.dtype == np.int8
    assert np.array_equal(q.astype(int), np.arange(-128, 128))


def integer_convolution(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int
) -> np.ndarray:
    """The definition in int64 alone: windows of the zero-padded map, einsum, every stride-th."""
    kernel = weight.shape[2]
    pad = kernel // 2
    padded = np.pad(x.astype(np.int64), ((pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(0, 1))
    full = np.einsum("hwikl,oikl->hwo", windows, weight.astype(np.int64)) + bias
    return full[::stride, ::stride]


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 8)),
    form=st.sampled_from([(1, 1), (3, 1), (3, 2)]),
    saturated=st.booleans(),
    seed=seeds,
)
def test_convolve_equals_the_integer_definition(
    size: tuple[int, int],
    channels: tuple[int, int],
    form: tuple[int, int],
    saturated: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    (inputs, outputs), (kernel, stride) = channels, form
    shape = (outputs, inputs, kernel, kernel)
    if saturated:
        x = rng.choice([-128, 127], (*size, inputs)).astype(np.int8)
        weight = rng.choice([-127, 127], shape).astype(np.int8)
    else:
        x = rng.integers(-128, 128, (*size, inputs)).astype(np.int8)
        weight = rng.integers(-127, 128, shape).astype(np.int8)
    bias = rng.integers(-(2**30), 2**30, outputs)
    result = intmath.convolve(x, weight, bias, stride)
    assert result.dtype == np.int64
    assert np.array_equal(result, integer_convolution(x, weight, bias, stride))


def test_convolve_is_exact_at_the_widest_sums() -> None:
    """1024 channels of the largest magnitudes: 2^27, where float32 would already round."""
    rng = np.random.default_rng(0)
    x = np.full((3, 3, 1024), -128, dtype=np.int8)
    x[rng.random(x.shape) < 0.001] = 127
    weight = np.full((2, 1024, 3, 3), -127, dtype=np.int8)
    bias = np.array([1, -1])
    result = intmath.convolve(x, weight, bias)
    assert result.max() > 2**27
    assert np.array_equal(result, integer_convolution(x, weight, bias, 1))


def test_convolve_refuses_an_accumulator_beyond_int32() -> None:
    x = np.full((1, 1, 1), 127, dtype=np.int8)
    weight = np.full((1, 1, 1, 1), 127, dtype=np.int8)
    fits = np.array([ACC_MAX - 127 * 127])
    assert intmath.convolve(x, weight, fits).item() == ACC_MAX
    with pytest.raises(ValueError, match=r"convolve: accumulator must be in .*, got 2147483648"):
        intmath.convolve(x, weight, fits + 1)
    with pytest.raises(ValueError, match=r"convolve: accumulator must be in .*, got -2147483649"):
        intmath.convolve(x, -weight, -fits - 2)


def test_operands_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"requantisation: shift must be in 1\.\.24, got 0"):
        intmath.requantise(1, 0)
    with pytest.raises(ValueError, match=r"requantisation: shift must be in 1\.\.24, got 25"):
        intmath.requantise(1, np.array([1, 25]))
    with pytest.raises(ValueError, match=r"join: shift must be in 0\.\.20, got 21"):
        intmath.join(0, 1, 21)
    with pytest.raises(ValueError, match=r"join: accumulator must be in .*, got 2147483648"):
        intmath.join(ACC_MAX, 1, 0)
    with pytest.raises(ValueError, match=r"join: q must be in -128\.\.127, got 128"):
        intmath.join(0, 128, 0)
    with pytest.raises(ValueError, match=r"tail: pixel must be in 0\.\.255, got -1"):
        intmath.tail_pixels(-1, 0, 1)
    with pytest.raises(TypeError, match="operands must be integers, got float64"):
        intmath.requantise(np.array([1.0]), 1)
    with pytest.raises(TypeError, match="image must be uint8, got int8"):
        intmath.quantise_image(np.zeros((1, 1, 3), np.int8))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="convolve: x must be int8 or int16, got int64"):
        intmath.convolve(
            np.zeros((1, 1, 1), np.int64),  # type: ignore[arg-type]
            np.zeros((1, 1, 1, 1), np.int8),
            np.zeros(1, np.int64),
        )
    with pytest.raises(ValueError, match="x must have 2 channels, got 1"):
        intmath.convolve(
            np.zeros((1, 1, 1), np.int8), np.zeros((1, 2, 1, 1), np.int8), np.zeros(1, np.int64)
        )
