"""Golomb-Rice codes of weights: lossless, one parameter for a layer (docs/FORMAT.md, WRIC).

A weight w is mapped to z = 2w for w >= 0, else -2w - 1, and written as z >> k ones, a zero, and the
k low bits of z, the highest first. Bytes fill from their highest bit; zeros fill the last one.
S. W. Golomb, "Run-length encodings", 1966; R. F. Rice, "Some practical universal noiseless coding
techniques", 1979.
"""

import functools

import numpy as np
import numpy.typing as npt

from hls_export import blobs
from quant import contract
from quant.integer_graph import Layer

PARAMETERS = range(8)
LARGEST = 2 * contract.WEIGHT_MAX  # of z

Weights = npt.NDArray[np.int8]


def _mapped(weights: Weights) -> npt.NDArray[np.int64]:
    wide = weights.ravel().astype(np.int64)
    return np.where(wide >= 0, 2 * wide, -2 * wide - 1)


def coded_bits(weights: Weights, k: int) -> int:
    """Bits that the codes of int8 weights take."""
    mapped = _mapped(weights)
    return int((mapped >> k).sum()) + mapped.size * (k + 1)


def best_parameter(weights: Weights) -> int:
    """The k of the fewest bits, the least of equals."""
    return min(PARAMETERS, key=lambda k: (coded_bits(weights, k), k))


def encode(weights: Weights, k: int) -> bytes:
    """Codes of int8 weights in -127..127, one after the other.

    Raises ValueError for a k out of 0..7 and for -128.
    """
    _check_parameter(k)
    mapped = _mapped(weights)
    if mapped.size and mapped.max() > LARGEST:
        raise ValueError(f"weights: values must be -127..127, got {int(weights.min())}")
    ones = mapped >> k
    lengths = ones + k + 1
    ends = np.cumsum(lengths)
    bits = np.zeros(int(lengths.sum()), np.uint8)
    starts = ends - lengths
    within = np.arange(int(ones.sum())) - np.repeat(np.cumsum(ones) - ones, ones)
    bits[np.repeat(starts, ones) + within] = 1
    for bit in range(k):
        bits[ends - 1 - bit] = mapped >> bit & 1
    return np.packbits(bits).tobytes()


def decode(stream: bytes, count: int, k: int) -> Weights:
    """int8 [count] out of their codes, which fill the stream to its last byte.

    Raises ValueError for a k out of 0..7, a code of more than z = 254, a stream that ends before
    the last code, and one that holds more than the codes and zeros up to the next byte.
    """
    _check_parameter(k)
    if 8 * len(stream) < count * (k + 1):
        raise ValueError(f"stream: bytes must hold {count} codes, got {len(stream)}")
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))
    zeros = np.flatnonzero(bits == 0)
    # Where the zero at or behind each bit stands: from code to code there is no other way.
    following = np.full(bits.size + 1, bits.size, np.int64)
    following[zeros] = zeros
    following = np.minimum.accumulate(following[::-1])[::-1]
    stops = np.empty(count, np.int64)
    step, place = following.data, 0
    for index in range(count):
        stop = step[place]
        stops[index] = stop
        place = stop + k + 1
        if place > bits.size:
            raise ValueError(f"stream: bytes must hold {count} codes, got an end in code {index}")
    if bits.size - place >= 8 or bits[place:].any():
        raise ValueError(f"stream: bits behind code {count} must be zeros up to the next byte")
    starts = np.concatenate(([0], stops[:-1] + k + 1)) if count else stops
    mapped = stops - starts
    for bit in range(k):
        mapped = 2 * mapped + bits[stops + 1 + bit]
    if count and mapped.max() > LARGEST:
        raise ValueError(f"stream: codes must be at most {LARGEST}, got {int(mapped.max())}")
    return np.where(mapped & 1, -(mapped + 1) // 2, mapped // 2).astype(np.int8)


def _check_parameter(k: int) -> None:
    if k not in PARAMETERS:
        raise ValueError(f"stream: k must be 0..{PARAMETERS[-1]}, got {k}")


@functools.lru_cache(maxsize=4096)
def layer_bytes(layer: Layer, block: int) -> int:
    """Bytes of a layer's codes in streaming order for blocks of so many output lanes."""
    stream = np.frombuffer(blobs.to_stream(layer.weight, block), np.int8)
    return -(-coded_bits(stream, best_parameter(stream)) // 8)
