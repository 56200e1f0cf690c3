"""The contract's arithmetic in numpy int64: the independent witness of csrc/contract/intmath.h.

Each function states its formula and evaluates it literally: floor is floor division, saturation is
a clamp. Accumulators are int64 arrays here so that leaving the contract's 32 bits is an error that
is seen and not a wrap. docs/NUMERICS.md explains the choices.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from quant import contract

Int8Array = npt.NDArray[np.int8]
Activations = npt.NDArray[np.int8] | npt.NDArray[np.int16]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.integer[Any]]


def floor_shift(value: npt.ArrayLike, shift: npt.ArrayLike) -> Int64Array:
    """floor(value / 2^shift), int64; `shift` in 0..62 broadcasts against `value`."""
    return np.floor_divide(_int64(value), _power_of_two(shift))


def rounded_shift(acc: npt.ArrayLike, shift: npt.ArrayLike) -> Int64Array:
    """floor((acc + 2^(shift-1)) / 2^shift), int64: to nearest, ties toward +infinity.

    acc: within int32; shift: within SHIFT_MIN..SHIFT_MAX, broadcast against `acc`.
    Raises ValueError when either is out of range.
    """
    shift_bits = _in_range("requantisation", "shift", shift, contract.SHIFT_MIN, contract.SHIFT_MAX)
    half = _power_of_two(shift_bits - 1)
    return floor_shift(_accumulator("requantisation", acc) + half, shift_bits)


def saturate(value: npt.ArrayLike, *, relu: bool = False, bits: int = 8) -> Activations:
    """Clamp to the integers of `bits` (8 or 16), int8 or int16; `relu`: from 0."""
    low, high = contract.activation_range(bits)
    clipped = np.clip(_int64(value), 0 if relu else low, high)
    return clipped.astype(np.int8) if bits == contract.ACTIVATION_BITS else clipped.astype(np.int16)


def requantise(
    acc: npt.ArrayLike, shift: npt.ArrayLike, *, relu: bool = False, bits: int = 8
) -> Activations:
    """sat(floor((acc + 2^(shift-1)) / 2^shift)) to `bits`; `relu` raises the lower end to 0.

    acc [..., O] within int32; shift [O] or a scalar in SHIFT_MIN..SHIFT_MAX. Returns int8 [..., O],
    or int16 for 16 bits.
    """
    return saturate(rounded_shift(acc, shift), relu=relu, bits=bits)


def tail_pixels(pixel: npt.ArrayLike, acc: npt.ArrayLike, shift: npt.ArrayLike) -> UInt8Array:
    """sat_u8(pixel - floor((acc + 2^(shift-1)) / 2^shift)), uint8: the global subtraction.

    pixel in 0..255; acc within int32; shift in SHIFT_MIN..SHIFT_MAX. All three broadcast.
    """
    pixels = _in_range("tail", "pixel", pixel, 0, contract.PIXEL_MAX)
    return np.clip(pixels - rounded_shift(acc, shift), 0, contract.PIXEL_MAX).astype(np.uint8)


def join(
    acc: npt.ArrayLike, q: npt.ArrayLike, shift: npt.ArrayLike, *, bits: int = 8
) -> Int64Array:
    """acc + q * 2^shift, int64: a residual or skip enters the accumulator without rounding.

    acc [..., O] within int32; q [..., O] of `bits` (8 or 16); shift [O] in
    JOIN_SHIFT_MIN..JOIN_SHIFT_MAX. Raises ValueError when the sum leaves int32.
    """
    low, high = contract.JOIN_SHIFT_MIN, contract.JOIN_SHIFT_MAX
    factor = _power_of_two(_in_range("join", "shift", shift, low, high))
    return _accumulator("join", _int64(acc) + _activation("join", q, bits) * factor)


def rounded_product(
    acc: npt.ArrayLike,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    q: npt.ArrayLike = 0,
    join_multiplier: npt.ArrayLike = 0,
) -> Int64Array:
    """floor((acc * M + q * R + 2^(n-1)) / 2^n), int64: the one rounding of `multiplier`.

    acc [..., O] within int32, the join not in it; multiplier M and join_multiplier R in
    0..MULTIPLIER_MAX; shift n in MULTIPLIER_SHIFT_MIN..MULTIPLIER_SHIFT_MAX; q [..., O] within
    int16. All broadcast. Raises ValueError when one is out of range.
    """
    what = "multiplier"
    m = _in_range(what, "multiplier", multiplier, 0, contract.MULTIPLIER_MAX)
    r = _in_range(what, "join multiplier", join_multiplier, 0, contract.MULTIPLIER_MAX)
    low, high = contract.MULTIPLIER_SHIFT_MIN, contract.MULTIPLIER_SHIFT_MAX
    n = _in_range(what, "shift", shift, low, high)
    joined = _activation(what, q, contract.WIDE_ACTIVATION_BITS) * r
    return floor_shift(_accumulator(what, acc) * m + joined + _power_of_two(n - 1), n)


def multiplier_tail_pixels(
    pixel: npt.ArrayLike, acc: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike
) -> UInt8Array:
    """sat_u8(pixel - floor((acc * M + 2^(n-1)) / 2^n)), uint8; ranges as `rounded_product`'s."""
    pixels = _in_range("tail", "pixel", pixel, 0, contract.PIXEL_MAX)
    noise = rounded_product(acc, multiplier, shift)
    return np.clip(pixels - noise, 0, contract.PIXEL_MAX).astype(np.uint8)


def quantise_image(image: UInt8Array) -> Int8Array:
    """pixel - 128 at exponent 7: uint8 of any shape to int8, exact."""
    if image.dtype != np.uint8:
        raise TypeError(f"quantise_image: image must be uint8, got {image.dtype}")
    return (image.astype(np.int16) - contract.IMAGE_OFFSET).astype(np.int8)


def convolve(x: Activations, weight: IntArray, bias: IntArray, stride: int = 1) -> Int64Array:
    """sum(x * weight) + bias over a 1x1 window, or a 3x3 window with zero padding 1.

    x int8 or int16 [H, W, I]; weight [O, I, k, k] in -127..127; bias [O] within int32.
    Returns int64 [ceil(H / stride), ceil(W / stride), O]; output (y, x) is centred on input
    (stride * y, stride * x). Raises TypeError when x is neither, ValueError when an accumulator
    leaves int32.

    The sums run in float64, as one matrix product per tap: every product and every partial sum,
    in any order and with fused multiply-adds or without, is an integer of magnitude at most
    32768 * 127 * 9 * I, far below 2^53, so float64 holds each of them exactly.
    """
    height, width, channels = x.shape
    out_channels, in_channels, kernel, _ = weight.shape
    if channels != in_channels:
        raise ValueError(f"convolve: x must have {in_channels} channels, got {channels}")
    padding = kernel // 2
    if x.dtype not in (np.int8, np.int16):
        raise TypeError(f"convolve: x must be int8 or int16, got {x.dtype}")
    margin = (padding, padding)
    padded = np.pad(x.astype(np.float64), (margin, margin, (0, 0)))
    rows, columns = -(-height // stride), -(-width // stride)
    total = np.zeros((rows * columns, out_channels), dtype=np.float64)
    taps = weight.astype(np.float64)
    for ky in range(kernel):
        for kx in range(kernel):
            window = padded[ky : ky + height : stride, kx : kx + width : stride]
            total += window.reshape(rows * columns, channels) @ taps[:, :, ky, kx].T
    acc = total.astype(np.int64) + bias.astype(np.int64)
    return _accumulator("convolve", acc).reshape(rows, columns, out_channels)


def _int64(value: npt.ArrayLike) -> Int64Array:
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"intmath: operands must be integers, got {array.dtype}")
    return array.astype(np.int64)


def _power_of_two(exponent: npt.ArrayLike) -> Int64Array:
    return np.left_shift(np.int64(1), _int64(exponent))


def _in_range(what: str, name: str, value: npt.ArrayLike, low: int, high: int) -> Int64Array:
    array = _int64(value)
    if array.size and (array.min() < low or array.max() > high):
        worst = array.min() if array.min() < low else array.max()
        raise ValueError(f"{what}: {name} must be in {low}..{high}, got {worst}")
    return array


def _activation(what: str, q: npt.ArrayLike, bits: int) -> Int64Array:
    return _in_range(what, "q", q, *contract.activation_range(bits))


def _accumulator(what: str, acc: npt.ArrayLike) -> Int64Array:
    return _in_range(
        what, "accumulator", acc, -contract.ACCUMULATOR_MAX - 1, contract.ACCUMULATOR_MAX
    )
