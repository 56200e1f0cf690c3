"""The one home of hypothesis strategies: topologies, integer graphs, images.

A strategy draws shapes and a seed; numpy fills in the numbers, so an example is small to print and
to shrink. `random_graph` and `random_image` serve tests that want one fixed case.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from hypothesis import strategies as st

from quant import contract
from quant.integer_graph import IMAGE, IntArray, IntegerGraph
from quant.intmath import UInt8Array
from quant.topology import LayerShape, Numbers, Topology, assemble, buffer_shapes

Style = Literal["natural", "edges"]
STYLES: tuple[Style, ...] = get_args(Style)

TINY = Topology(widths=(4, 6), growths=(2, 3))
EDGE = Topology(widths=(16, 32, 64), growths=(8, 16, 32))

# One requantisation shift spans 1..24, so an output's exponent may exceed its input's by at most
# this: e_w <= 15 and s = e_x + e_w - e_y >= 1.
EXPONENT_SPREAD = contract.WEIGHT_EXPONENT_MAX - contract.SHIFT_MIN


def random_graph(seed: int, topology: Topology = TINY, style: Style = "natural") -> IntegerGraph:
    """An IntegerGraph that satisfies the contract, the same for the same arguments.

    natural: weights as of a trained network; activations spread over their range, few saturate.
    edges: every channel takes one of the extremes: dead, saturating both ways, full of ties,
    accumulator proof met to the last unit; exponents and shifts up to their ends.
    """
    rng = np.random.default_rng([seed, STYLES.index(style)])
    names = [name for name, _, _ in buffer_shapes(topology) if name != IMAGE]
    if style == "natural":
        exponents = {name: int(rng.integers(4, 6, endpoint=True)) for name in names}
    else:
        lowest = contract.ACTIVATION_EXPONENT_MIN
        low = int(rng.integers(lowest, contract.ACTIVATION_EXPONENT_MAX - EXPONENT_SPREAD + 1))
        pool = rng.choice([1, 5, EXPONENT_SPREAD]) + 1
        offset = int(rng.integers(0, EXPONENT_SPREAD + 2 - pool))
        exponents = {name: low + offset + int(rng.integers(pool)) for name in names}
    fill = {"natural": _natural, "edges": _edges}[style]
    known = {IMAGE: contract.IMAGE_EXPONENT, **exponents}
    return assemble(topology, f"{style}-{seed}", exponents, lambda shape: fill(rng, shape, known))


def random_image(seed: int, height: int, width: int) -> UInt8Array:
    """uint8 [height, width, 3]: smooth shading, noise, and patches clipped at 0 and 255."""
    rng = np.random.default_rng([seed, height, width])
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / rng.uniform(3, 30) + columns / rng.uniform(3, 30)) for _ in range(3)]
    image = 128 + 150 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _weight_exponent_range(shape: LayerShape, exponents: dict[str, int]) -> tuple[int, int]:
    """The weight exponents that keep the layer's shift and join within the contract."""
    source = exponents[shape.input.buffer]
    target = contract.IMAGE_EXPONENT if shape.output is None else exponents[shape.output.buffer]
    low = max(contract.WEIGHT_EXPONENT_MIN, target - source + contract.SHIFT_MIN)
    high = min(contract.WEIGHT_EXPONENT_MAX, target - source + contract.SHIFT_MAX)
    if shape.join is not None:
        joined = exponents[shape.join.buffer]
        low = max(low, joined - source + contract.JOIN_SHIFT_MIN)
        high = min(high, joined - source + contract.JOIN_SHIFT_MAX)
    return low, high


# The gain of each kind of layer, over unit variance per input: residual branches and the tail stay
# small, as they are in a trained network, so that activations neither all saturate nor all die.
_GAINS = {"head": 1.5, "conv1": 1.4, "conv2": 1.4, "conv3": 1.4, "fuse": 0.4, "tail": 0.05}


def _natural(rng: np.random.Generator, shape: LayerShape, exponents: dict[str, int]) -> Numbers:
    fan_in = int(np.prod(shape.weight_shape[1:]))
    gain = _GAINS.get(shape.name.rsplit(".")[-1], 0.7)
    weight = rng.normal(0, gain / np.sqrt(fan_in), shape.weight_shape)
    bias = rng.normal(0, 0.05 * gain, shape.weight_shape[0])
    low, high = _weight_exponent_range(shape, exponents)
    peak = np.abs(weight).max(axis=(1, 2, 3))
    exponent = np.clip(np.floor(np.log2(contract.WEIGHT_MAX / peak)), low, high).astype(np.int64)
    quantised = np.rint(weight * 2.0 ** exponent[:, None, None, None])
    acc_exponent = exponent + exponents[shape.input.buffer]
    return (
        np.clip(quantised, contract.WEIGHT_MIN, contract.WEIGHT_MAX).astype(np.int8),
        exponent,
        np.rint(bias * 2.0**acc_exponent).astype(np.int64),
    )


def _edges(rng: np.random.Generator, shape: LayerShape, exponents: dict[str, int]) -> Numbers:
    channels, *window = shape.weight_shape
    low, high = _weight_exponent_range(shape, exponents)
    weight = np.zeros(shape.weight_shape, dtype=np.int8)
    exponent = np.zeros(channels, dtype=np.int64)
    bias = np.zeros(channels, dtype=np.int64)
    for channel in range(channels):
        exponent[channel] = rng.choice((low, high, int(rng.integers(low, high, endpoint=True))))
        acc_exponent = int(exponent[channel]) + exponents[shape.input.buffer]
        target = contract.IMAGE_EXPONENT if shape.output is None else exponents[shape.output.buffer]
        shift = acc_exponent - target
        joined = None if shape.join is None else acc_exponent - exponents[shape.join.buffer]
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        weight[channel], bias[channel] = kind(rng, tuple(window), shift, joined)
    return weight, exponent, bias


# Each kind: (rng, window, requantisation shift, join shift or None) -> weight of one channel, bias.
_Window = tuple[int, ...]
_Channel = tuple[IntArray, int]


def _uniform(rng: np.random.Generator, window: _Window, shift: int, joined: int | None) -> _Channel:
    return rng.integers(-127, 127, window, endpoint=True), int(rng.integers(-(2**14), 2**14))


def _sparse(rng: np.random.Generator, window: _Window, shift: int, joined: int | None) -> _Channel:
    return rng.integers(-1, 1, window, endpoint=True), int(rng.integers(-4, 5))


def _dead(rng: np.random.Generator, window: _Window, shift: int, joined: int | None) -> _Channel:
    return np.zeros(window, dtype=np.int64), 0


def _extreme(rng: np.random.Generator, window: _Window, shift: int, joined: int | None) -> _Channel:
    return rng.choice([-127, 127], window), 0


def _ties(rng: np.random.Generator, window: _Window, shift: int, joined: int | None) -> _Channel:
    """Accumulators at odd multiples of half an output step, wherever weights can reach that."""
    half = min(2 ** (shift - 1), 64)
    return half * rng.integers(-1, 1, window, endpoint=True), int(rng.integers(-8, 8)) * half


def _tight(rng: np.random.Generator, window: _Window, shift: int, joined: int | None) -> _Channel:
    """The accumulator bound is exactly int32's largest."""
    weight = rng.integers(-127, 127, window, endpoint=True)
    rest = 128 * int(np.abs(weight).sum()) + 2 ** (shift - 1)
    if joined is not None:
        rest += 128 * 2**joined
    return weight, int(rng.choice([-1, 1])) * (contract.ACCUMULATOR_MAX - rest)


_Kind = Callable[[np.random.Generator, _Window, int, int | None], _Channel]
_KINDS: tuple[_Kind, ...] = (_uniform, _uniform, _sparse, _dead, _extreme, _ties, _tight)


seeds = st.integers(0, 2**32 - 1)


@st.composite
def topologies(draw: st.DrawFn, max_levels: int = 3, max_width: int = 6) -> Topology:
    """Topologies of 1..max_levels levels, widths and growths from 1."""
    count = draw(st.integers(2, max_levels + 1))
    numbers = st.lists(st.integers(1, max_width), min_size=count, max_size=count)
    return Topology(tuple(draw(numbers)), tuple(draw(numbers)))


@st.composite
def graphs(draw: st.DrawFn, max_levels: int = 3, max_width: int = 6) -> IntegerGraph:
    """`random_graph` over topologies, seeds and styles."""
    topology = draw(topologies(max_levels, max_width))
    return random_graph(draw(seeds), topology, draw(st.sampled_from(STYLES)))


@st.composite
def images(draw: st.DrawFn, max_side: int = 20) -> UInt8Array:
    """uint8 [H, W, 3], H and W in 1..max_side: natural, uniformly random, or flat at an end."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    seed = draw(seeds)
    kind = draw(st.sampled_from(("natural", "random", "black", "white")))
    if kind == "natural":
        return random_image(seed, height, width)
    if kind == "random":
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.full((height, width, 3), 0 if kind == "black" else 255, dtype=np.uint8)
