"""The one home of hypothesis strategies: topologies, integer graphs, images.

A strategy draws shapes and a seed; numpy fills in the numbers, so an example is small to print and
to shrink. `random_graph` and `random_image` serve tests that want one fixed case.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from hypothesis import strategies as st

from quant import contract
from quant.integer_graph import IMAGE, FloatArray, IntArray, IntegerGraph, Requantisation
from quant.intmath import UInt8Array
from quant.topology import LayerShape, Numbers, Topology, assemble, buffer_shapes

Style = Literal["natural", "edges"]
STYLES: tuple[Style, ...] = get_args(Style)
Form = Literal["plain", "wide", "multiplier"]
FORMS: tuple[Form, ...] = get_args(Form)

TINY = Topology(widths=(4, 6), growths=(2, 3))
EDGE = Topology(widths=(16, 32, 64), growths=(8, 16, 32))

# One requantisation shift spans 1..24, so an output's exponent may exceed its input's by at most
# this: e_w <= 15 and s = e_x + e_w - e_y >= 1.
EXPONENT_SPREAD = contract.WEIGHT_EXPONENT_MAX - contract.SHIFT_MIN
# 2^15 * 2^j of a 16-bit join takes half of the accumulator at most.
WIDE_JOIN_SHIFT_MAX = 15


def random_graph(
    seed: int, topology: Topology = TINY, style: Style = "natural", form: Form = "plain"
) -> IntegerGraph:
    """An IntegerGraph that satisfies the contract, the same for the same arguments.

    natural: weights as of a trained network; activations spread over their range, few saturate.
    edges: every channel takes one of the extremes: dead, saturating both ways, full of ties,
    accumulator proof met to the last unit; exponents and shifts up to their ends.

    plain: 8 bits, dyadic. wide: buffers of 8 and 16 bits, weights of 4..8. multiplier: both, too,
    in multiplier arithmetic.
    """
    entropy = [seed, STYLES.index(style)]
    rng = np.random.default_rng(entropy if form == "plain" else [*entropy, FORMS.index(form)])
    names = [name for name, _, _ in buffer_shapes(topology) if name != IMAGE]
    bits = dict.fromkeys([IMAGE, *names], contract.ACTIVATION_BITS)
    if form != "plain":
        bits |= {name: int(rng.choice([8, 16])) for name in names}
        bits[names[int(rng.integers(len(names)))]] = contract.WIDE_ACTIVATION_BITS
    exponents = _exponents(rng, style, {name: bits[name] for name in names})
    scales: dict[str, float] | None = None
    if form == "multiplier":
        scales = {name: float(2.0 ** -rng.uniform(e, e + 1)) for name, e in exponents.items()}
        scales[IMAGE] = 2.0**-contract.IMAGE_EXPONENT
    known = {IMAGE: contract.IMAGE_EXPONENT, **exponents}

    def numbers(shape: LayerShape) -> Numbers:
        weight_bits = 8 if form == "plain" else int(rng.integers(4, 8, endpoint=True))
        place = Place(shape, known, bits, scales, weight_bits)
        return (_natural if style == "natural" else _edges)(rng, place)

    return assemble(topology, f"{style}-{seed}", exponents, numbers, bits, scales)


def _exponents(rng: np.random.Generator, style: Style, bits: dict[str, int]) -> dict[str, int]:
    if style == "natural":
        fine = {8: 0, 16: 6}  # 16 bits buy finer steps
        return {name: int(rng.integers(4, 6, endpoint=True)) + fine[bits[name]] for name in bits}
    lowest, highest = (
        contract.ACTIVATION_EXPONENT_MIN,
        contract.activation_exponents(max(bits.values()))[-1],
    )
    low = int(rng.integers(lowest, highest - EXPONENT_SPREAD + 1))
    pool = rng.choice([1, 5, EXPONENT_SPREAD]) + 1
    offset = int(rng.integers(0, EXPONENT_SPREAD + 2 - pool))
    drawn = {name: low + offset + int(rng.integers(pool)) for name in bits}
    return {
        name: min(e, contract.activation_exponents(bits[name])[-1]) for name, e in drawn.items()
    }


def random_image(seed: int, height: int, width: int) -> UInt8Array:
    """uint8 [height, width, 3]: smooth shading, noise, and patches clipped at 0 and 255."""
    rng = np.random.default_rng([seed, height, width])
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / rng.uniform(3, 30) + columns / rng.uniform(3, 30)) for _ in range(3)]
    image = 128 + 150 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Place:
    """Where a layer's numbers go: its shape, what surrounds it, the bits of its weights.

    exponents, bits: of every buffer, the image included; scales: of a multiplier graph.
    """

    shape: LayerShape
    exponents: dict[str, int]
    bits: dict[str, int]
    scales: dict[str, float] | None
    weight_bits: int

    @property
    def limit(self) -> int:
        return contract.weight_limit(self.weight_bits)

    @property
    def input_magnitude(self) -> int:
        return 1 << self.bits[self.shape.input.buffer] - 1

    @property
    def input_exponent(self) -> int:
        return self.exponents[self.shape.input.buffer]

    @property
    def output_exponent(self) -> int:
        output = self.shape.output
        return contract.IMAGE_EXPONENT if output is None else self.exponents[output.buffer]

    def weight_exponents(self) -> tuple[int, int]:
        """The weight exponents that keep the layer's shift and join within the contract."""
        rise = self.output_exponent - self.input_exponent
        low = max(contract.WEIGHT_EXPONENT_MIN, rise + contract.SHIFT_MIN)
        high = min(contract.WEIGHT_EXPONENT_MAX, rise + contract.SHIFT_MAX)
        join = self.shape.join
        if join is not None:
            rise = self.exponents[join.buffer] - self.input_exponent
            wide = self.bits[join.buffer] > contract.ACTIVATION_BITS
            most = WIDE_JOIN_SHIFT_MAX if wide else contract.JOIN_SHIFT_MAX
            low, high = max(low, rise + contract.JOIN_SHIFT_MIN), min(high, rise + most)
        return low, high

    def rest(self, weight: IntArray, exponent: int) -> int:
        """The accumulator bound of one channel without its bias."""
        rest = self.input_magnitude * int(np.abs(weight).sum())
        if self.scales is not None:
            return rest
        acc_exponent = exponent + self.input_exponent
        join = self.shape.join
        if join is not None:
            magnitude = 1 << self.bits[join.buffer] - 1
            rest += magnitude * 2 ** (acc_exponent - self.exponents[join.buffer])
        return rest + 2 ** (acc_exponent - self.output_exponent - 1)

    def numbers(self, weight: IntArray, exponent: IntArray, bias: IntArray) -> Numbers:
        return Numbers(weight.astype(np.int8), exponent, bias, self.weight_bits)

    def ratios(self, weight_scale: FloatArray) -> tuple[FloatArray, float]:
        """The real factors of accumulator and join in units of the output."""
        assert self.scales is not None
        output, join = self.shape.output, self.shape.join
        out = self.scales[IMAGE if output is None else output.buffer]
        joined = 0.0 if join is None else self.scales[join.buffer] / out
        return weight_scale * self.scales[self.shape.input.buffer] / out, joined


# The gain of each kind of layer, over unit variance per input: residual branches and the tail stay
# small, as they are in a trained network, so that activations neither all saturate nor all die.
_GAINS = {"head": 1.5, "conv1": 1.4, "conv2": 1.4, "conv3": 1.4, "fuse": 0.4, "tail": 0.05}


def _natural(rng: np.random.Generator, place: Place) -> Numbers:
    shape = place.shape.weight_shape
    fan_in = int(np.prod(shape[1:]))
    gain = _GAINS.get(place.shape.name.rsplit(".")[-1], 0.7)
    weight = rng.normal(0, gain / np.sqrt(fan_in), shape)
    bias = rng.normal(0, 0.05 * gain, shape[0])
    peak = np.abs(weight).max(axis=(1, 2, 3))
    # 16-bit inputs leave less of the accumulator to the weights: three quarters of it.
    budget = 3 * 2**29 / place.input_magnitude / np.abs(weight).sum(axis=(1, 2, 3))
    steps = np.minimum(place.limit / peak, budget)
    if place.scales is not None:
        unit = place.scales[place.shape.input.buffer]
        whole = np.rint(weight * steps[:, None, None, None])
        zeros = np.zeros(shape[0], dtype=np.int64)
        numbers = place.numbers(whole, zeros, np.rint(bias * steps / unit).astype(np.int64))
        return numbers._replace(multipliers=Requantisation.nearest(*place.ratios(1 / steps)))
    low, high = place.weight_exponents()
    exponent = np.clip(np.floor(np.log2(steps)), low, high).astype(np.int64)
    quantised = np.rint(weight * 2.0 ** exponent[:, None, None, None])
    return place.numbers(
        np.clip(quantised, -place.limit, place.limit),
        exponent,
        np.rint(bias * 2.0 ** (exponent + place.input_exponent)).astype(np.int64),
    )


def _edges(rng: np.random.Generator, place: Place) -> Numbers:
    channels = place.shape.weight_shape[0]
    low, high = place.weight_exponents()
    weight = np.zeros(place.shape.weight_shape, dtype=np.int8)
    exponent = np.zeros(channels, dtype=np.int64)
    bias = np.zeros(channels, dtype=np.int64)
    for channel in range(channels):
        exponent[channel] = rng.choice((low, high, int(rng.integers(low, high, endpoint=True))))
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        weight[channel], bias[channel] = _fitted(
            place, int(exponent[channel]), kind(rng, place, int(exponent[channel]))
        )
    if place.scales is None:
        return place.numbers(weight, exponent, bias)
    numbers = place.numbers(weight, np.zeros_like(exponent), bias)
    return numbers._replace(multipliers=_edge_multipliers(rng, place))


def _fitted(place: Place, exponent: int, channel: "_Channel") -> "_Channel":
    """Thinned until the accumulator bound holds: 16-bit inputs may ask for it."""
    weight, bias = channel
    while (rest := place.rest(weight, exponent)) > contract.ACCUMULATOR_MAX:
        weight = np.ascontiguousarray(weight)
        used = np.flatnonzero(weight)
        weight.reshape(-1)[used[: (len(used) + 1) // 2]] = 0
    room = contract.ACCUMULATOR_MAX - rest
    return weight, int(np.clip(bias, -room, room))


def _edge_multipliers(rng: np.random.Generator, place: Place) -> Requantisation:
    """Ends of every range, and what makes the activations move."""
    channels = place.shape.weight_shape[0]
    most = contract.MULTIPLIER_MAX
    n_low, n_high = contract.MULTIPLIER_SHIFT_MIN, contract.MULTIPLIER_SHIFT_MAX
    n = rng.choice([n_low, n_high, *rng.integers(n_low, n_high, 4, endpoint=True), 28], channels)
    drawn = rng.choice([0, 1, most, *rng.integers(0, most, 4, endpoint=True)], (2, channels))
    r = drawn[1] if place.shape.join is not None else np.zeros(channels, np.int64)
    return Requantisation(drawn[0], r, n)


# Each kind: (rng, place, weight exponent) -> weight [I, k, k] and bias of one channel.
_Channel = tuple[IntArray, int]


def _uniform(rng: np.random.Generator, place: Place, exponent: int) -> _Channel:
    window = place.shape.weight_shape[1:]
    weight = rng.integers(-place.limit, place.limit, window, endpoint=True)
    return weight, int(rng.integers(-(2**14), 2**14))


def _sparse(rng: np.random.Generator, place: Place, exponent: int) -> _Channel:
    window = place.shape.weight_shape[1:]
    return rng.integers(-1, 1, window, endpoint=True), int(rng.integers(-4, 5))


def _dead(rng: np.random.Generator, place: Place, exponent: int) -> _Channel:
    return np.zeros(place.shape.weight_shape[1:], dtype=np.int64), 0


def _extreme(rng: np.random.Generator, place: Place, exponent: int) -> _Channel:
    return rng.choice([-place.limit, place.limit], place.shape.weight_shape[1:]), 0


def _ties(rng: np.random.Generator, place: Place, exponent: int) -> _Channel:
    """Accumulators at odd multiples of half an output step, wherever weights can reach that."""
    shift = exponent + place.input_exponent - place.output_exponent
    half = min(2 ** (shift - 1), (place.limit + 1) // 2)
    window = place.shape.weight_shape[1:]
    return half * rng.integers(-1, 1, window, endpoint=True), int(rng.integers(-8, 8)) * half


def _tight(rng: np.random.Generator, place: Place, exponent: int) -> _Channel:
    """The accumulator bound is exactly int32's largest, wherever the weights leave room."""
    window = place.shape.weight_shape[1:]
    weight = rng.integers(-place.limit, place.limit, window, endpoint=True)
    rest = place.rest(weight, exponent)
    return weight, int(rng.choice([-1, 1])) * (contract.ACCUMULATOR_MAX - rest)


_Kind = Callable[[np.random.Generator, Place, int], _Channel]
_KINDS: tuple[_Kind, ...] = (_uniform, _uniform, _sparse, _dead, _extreme, _ties, _tight)


seeds = st.integers(0, 2**32 - 1)


@st.composite
def topologies(draw: st.DrawFn, max_levels: int = 3, max_width: int = 6) -> Topology:
    """Topologies of 1..max_levels levels, widths and growths from 1."""
    count = draw(st.integers(2, max_levels + 1))
    numbers = st.lists(st.integers(1, max_width), min_size=count, max_size=count)
    return Topology(tuple(draw(numbers)), tuple(draw(numbers)))


@st.composite
def graphs(
    draw: st.DrawFn,
    max_levels: int = 3,
    max_width: int = 6,
    forms: Sequence[Form] = ("plain",),
) -> IntegerGraph:
    """`random_graph` over topologies, seeds, styles and the forms asked for."""
    topology = draw(topologies(max_levels, max_width))
    style, form = draw(st.sampled_from(STYLES)), draw(st.sampled_from(list(forms)))
    return random_graph(draw(seeds), topology, style, form)


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
