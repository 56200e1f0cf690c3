"""The IntegerGraph: a quantised denoiser as frozen dataclasses, without torch.

A graph is a list of buffers and a list of layers in execution order. A *buffer* is an activation
map [H >> level, W >> level, channels] with one scale; a *view* is a channel slice of a buffer.
The members of a dense block are views of one growth buffer, so joining channels is an address and
never a copy. Every slice is written once, before it is read.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quant import contract
from quant.contract import Op

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.float64]

IMAGE = "image"  # the buffer that holds the padded input as pixel - 128


@dataclass(frozen=True)
class Buffer:
    """An activation map [H >> level, W >> level, channels] of int8 or int16: value = q * scale.

    exponent: of a dyadic graph, where scale is 2^-exponent; 0 in a multiplier graph.
    real_scale: of a multiplier graph, for people; no machine needs it. None when nobody knows.
    """

    name: str
    channels: int
    level: int
    exponent: int
    bits: int = contract.ACTIVATION_BITS
    real_scale: float | None = None

    @property
    def scale(self) -> float:
        """The value of one unit; 1 where nobody knows."""
        return 2.0**-self.exponent if self.real_scale is None else self.real_scale


@dataclass(frozen=True)
class View:
    """Channels [offset, offset + channels) of a buffer."""

    buffer: str
    offset: int
    channels: int

    @property
    def end(self) -> int:
        return self.offset + self.channels


class Requantisation(NamedTuple):
    """floor((acc * M + q_r * R + 2^(n-1)) / 2^n), int64 [O] each; R is 0 without a join."""

    multiplier: IntArray
    join_multiplier: IntArray
    shift: IntArray

    @classmethod
    def nearest(cls, factor: FloatArray, join_factor: float = 0.0) -> "Requantisation":
        """M / 2^n nearest to each `factor` [O] and R / 2^n to `join_factor`, both from 0.

        n is the largest for which M and R stay within MULTIPLIER_MAX. Raises ValueError, naming
        the channel, when there is none.
        """
        shifts = range(contract.MULTIPLIER_SHIFT_MIN, contract.MULTIPLIER_SHIFT_MAX + 1)
        powers = np.exp2(np.array(shifts, dtype=np.float64))[:, None]
        larger = np.maximum(factor, join_factor)
        fits = np.floor(larger * powers + 0.5) <= contract.MULTIPLIER_MAX  # [shifts, O]
        count = fits.sum(axis=0)
        if not count.all():
            channel = int(np.flatnonzero(count == 0)[0])
            limit = contract.MULTIPLIER_MAX / 2**contract.MULTIPLIER_SHIFT_MIN
            raise ValueError(
                f"channel {channel}: ratio of scales must be at most {limit:.0f}, "
                f"got {larger[channel]:g}"
            )
        power = powers[count - 1, 0]
        m, r = (np.floor(part * power + 0.5).astype(np.int64) for part in (factor, join_factor))
        return cls(m, r, count.astype(np.int64) + contract.MULTIPLIER_SHIFT_MIN - 1)


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution with everything that joins its accumulator.

    weight          int8 [O, I, k, k], of magnitude at most 2^(weight_bits - 1) - 1
    weight_exponent int64 [O]: weight value = q * 2^-weight_exponent; 0 in a multiplier graph
    bias            int64 [O] within int32, at exponent e_acc = e_input + weight_exponent
    output          None for the tail, whose output is the image itself
    multipliers     of a multiplier graph, and None in a dyadic one
    """

    name: str
    op: Op
    input: View
    output: View | None
    join: View | None
    relu: bool
    weight: IntArray
    weight_exponent: IntArray
    bias: IntArray
    weight_bits: int = contract.WEIGHT_BITS
    multipliers: Requantisation | None = None

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A denoiser in integers, `levels` steps deep: images are padded to multiples of 2^levels.

    Raises ValueError on construction, naming layer and channel, when the contract does not hold.
    """

    name: str
    levels: int
    buffers: tuple[Buffer, ...]
    layers: tuple[Layer, ...]
    arithmetic: str = contract.ARITHMETIC

    def __post_init__(self) -> None:
        check_graph(self)

    @property
    def grid(self) -> int:
        return 1 << self.levels

    def buffer(self, name: str) -> Buffer:
        return self._by_name[name]

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Buffer]:
        return {buffer.name: buffer for buffer in self.buffers}

    @property
    def dyadic(self) -> bool:
        return self.arithmetic == contract.ARITHMETIC

    @property
    def activation_bits(self) -> int:
        """Of the widest buffer."""
        return max(buffer.bits for buffer in self.buffers)

    @property
    def weight_bits(self) -> int:
        """Of the widest layer."""
        return max(layer.weight_bits for layer in self.layers)

    @property
    def formulas(self) -> dict[str, str]:
        """Title -> rounding, as artefacts name them."""
        wide = self.activation_bits > contract.ACTIVATION_BITS
        return contract.formulas(self.arithmetic, wide=wide)

    def requantisation(self, layer: Layer) -> Requantisation:
        """M, R and n of a layer; dyadic is the case M = 1, R = 2^join_shift, n = shift."""
        if layer.multipliers is not None:
            return layer.multipliers
        ones = np.ones(layer.out_channels, dtype=np.int64)
        joined = layer.join is not None
        factor = np.left_shift(ones, self.join_shift(layer)) if joined else 0 * ones
        return Requantisation(ones, factor, self.shift(layer))

    def accumulator_exponent(self, layer: Layer) -> IntArray:
        """e_acc = e_input + e_weight, int64 [O]."""
        return layer.weight_exponent.astype(np.int64) + self.buffer(layer.input.buffer).exponent

    def shift(self, layer: Layer) -> IntArray:
        """s = e_acc - e_output of a dyadic graph, int64 [O]; the tail puts out pixels."""
        exponent = (
            contract.IMAGE_EXPONENT
            if layer.output is None
            else self.buffer(layer.output.buffer).exponent
        )
        return self.accumulator_exponent(layer) - exponent

    def join_shift(self, layer: Layer) -> IntArray:
        """e_acc - e_join of a dyadic graph, int64 [O]; zeros without a join."""
        if layer.join is None:
            return np.zeros(layer.out_channels, dtype=np.int64)
        return self.accumulator_exponent(layer) - self.buffer(layer.join.buffer).exponent

    def accumulator_bound(self, layer: Layer) -> IntArray:
        """Largest |accumulator| that any input can cause, in any order of summation, int64 [O].

        m_x sum|q_w| + |b| + m_r * 2^j (when something joins) + 2^(s-1), m being 128 or 32768 by the
        bits of the buffer. In a multiplier graph the join and the half have no part in it.
        """
        weight = np.abs(layer.weight.astype(np.int64)).sum(axis=(1, 2, 3))
        bound = self._magnitude(layer.input) * weight + np.abs(layer.bias.astype(np.int64))
        if not self.dyadic:
            return bound
        if layer.join is not None:
            joined = np.left_shift(np.int64(1), self.join_shift(layer))
            bound = bound + self._magnitude(layer.join) * joined
        return bound + np.left_shift(np.int64(1), self.shift(layer) - 1)

    def value_bytes(self, view: View | None) -> int:
        """Bytes of one value of a view; of no view the image's."""
        return 1 if view is None else self.buffer(view.buffer).bits // 8

    def _magnitude(self, view: View) -> int:
        return 1 << self.buffer(view.buffer).bits - 1

    def accumulator_bits(self, layer: Layer) -> int:
        """The least two's complement width whose range holds `accumulator_bound`."""
        return int(self.accumulator_bound(layer).max()).bit_length() + 1

    def macs(self, layer: Layer, height: int, width: int) -> int:
        """Multiply-accumulates of a layer on an image of height x width, padded to the grid."""
        rows, columns = (math.ceil(size / self.grid) * self.grid for size in (height, width))
        level = self.buffer(layer.input.buffer).level + (layer.op.stride - 1)
        return (rows >> level) * (columns >> level) * int(layer.weight.size)


def check_graph(graph: IntegerGraph) -> None:
    """Hold a graph against the contract; the first breach raises ValueError naming its place."""
    _require(
        1 <= graph.levels <= contract.LEVELS_MAX,
        f"graph {graph.name}",
        "levels",
        f"be in 1..{contract.LEVELS_MAX}",
        graph.levels,
    )
    known = graph.arithmetic in contract.ARITHMETICS
    rule = f"be one of {', '.join(contract.ARITHMETICS)}"
    _require(known, f"graph {graph.name}", "arithmetic", rule, repr(graph.arithmetic))
    _check_buffers(graph)
    written: dict[str, set[int]] = {buffer.name: set() for buffer in graph.buffers}
    written[IMAGE] = set(range(contract.IMAGE_CHANNELS))
    names: set[str] = set()
    for layer in graph.layers:
        what = f"layer {layer.name}"
        _require(layer.name not in names, what, "name", "be unique", layer.name)
        names.add(layer.name)
        dyadic = layer.multipliers is None
        rule = f"be those of {graph.arithmetic} arithmetic"
        got = "none" if dyadic else "some"
        _require(dyadic == graph.dyadic, what, "multipliers", rule, got)
        _check_arrays(layer)
        _check_views(graph, layer, written)
        _check_numbers(graph, layer)
    tails = [layer.name for layer in graph.layers if layer.op is Op.TAIL]
    _require(
        bool(tails) and tails == [graph.layers[-1].name],
        f"graph {graph.name}",
        "layers",
        "end with the only tail",
        tails,
    )


def _require(holds: bool, what: str, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{what}: {name} must {rule}, got {value}")


def _check_buffers(graph: IntegerGraph) -> None:
    names = [buffer.name for buffer in graph.buffers]
    _require(len(set(names)) == len(names), f"graph {graph.name}", "buffer names", "differ", names)
    _require(IMAGE in names, f"graph {graph.name}", "buffers", f"hold {IMAGE!r}", names)
    for buffer in graph.buffers:
        what = f"buffer {buffer.name}"
        _require(buffer.channels >= 1, what, "channels", "be at least 1", buffer.channels)
        _require(
            0 <= buffer.level <= graph.levels,
            what,
            "level",
            f"be in 0..{graph.levels}",
            buffer.level,
        )
        widths = (contract.ACTIVATION_BITS, contract.WIDE_ACTIVATION_BITS)
        _require(buffer.bits in widths, what, "bits", f"be {widths[0]} or {widths[1]}", buffer.bits)
        exponents = contract.activation_exponents(buffer.bits) if graph.dyadic else range(1)
        rule = f"be in {exponents[0]}..{exponents[-1]}"
        _require(buffer.exponent in exponents, what, "exponent", rule, buffer.exponent)
        scale = buffer.real_scale
        if scale is not None:
            _require(not graph.dyadic, what, "real_scale", "be None in a dyadic graph", scale)
            _require(0 < scale < math.inf, what, "real_scale", "be positive and finite", scale)
    image = graph.buffer(IMAGE)
    exponent = contract.IMAGE_EXPONENT if graph.dyadic else 0
    expected = Buffer(IMAGE, contract.IMAGE_CHANNELS, 0, exponent, real_scale=image.real_scale)
    _require(image == expected, f"graph {graph.name}", IMAGE, f"be {expected}", image)


def _check_arrays(layer: Layer) -> None:
    what = f"layer {layer.name}"
    arrays = layer_arrays(layer)
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"{what}: {name} must be an integer array, got {array.dtype}")
    kernel = layer.op.kernel
    shape = layer.weight.shape
    _require(len(shape) == 4, what, "weight", "have four dimensions", shape)
    channels = layer.out_channels
    _require(channels >= 1, what, "output channels", "be at least 1", channels)
    _require(
        layer.weight.shape == (channels, layer.input.channels, kernel, kernel),
        what,
        "weight",
        f"have shape (O, {layer.input.channels}, {kernel}, {kernel})",
        layer.weight.shape,
    )
    for name, array in arrays.items():
        if name != "weight":
            fits = array.shape == (channels,)
            _require(fits, what, name, f"have shape ({channels},)", array.shape)


def _check_views(graph: IntegerGraph, layer: Layer, written: dict[str, set[int]]) -> None:
    what = f"layer {layer.name}"
    views = {"input": layer.input, "join": layer.join, "output": layer.output}
    for name, view in views.items():
        if view is None:
            continue
        _require(view.buffer in written, what, f"{name} buffer", "exist", view.buffer)
        buffer = graph.buffer(view.buffer)
        _require(
            view.offset >= 0 and view.channels >= 1 and view.end <= buffer.channels,
            what,
            name,
            f"lie within the {buffer.channels} channels of {buffer.name}",
            view,
        )
        region = set(range(view.offset, view.end))
        if name == "output":
            fresh = not region & written[view.buffer]
            _require(fresh, what, name, "be written once", view)
            written[view.buffer] |= region
        else:
            _require(region <= written[view.buffer], what, name, "be written before", view)

    level = graph.buffer(layer.input.buffer).level
    if layer.op is Op.TAIL:
        _require(layer.output is None, what, "output", "be None for a tail", layer.output)
        _require(layer.join is None, what, "join", "be None for a tail", layer.join)
        _require(not layer.relu, what, "relu", "be False for a tail", layer.relu)
        _require(level == 0, what, "input level", "be 0 for a tail", level)
        expected = contract.IMAGE_CHANNELS
        _require(
            layer.out_channels == expected, what, "channels", f"be {expected}", layer.out_channels
        )
        return
    _require(layer.output is not None, what, "output", "be a view", None)
    assert layer.output is not None
    step = {Op.CONV3X3_STRIDE2: 1, Op.UP: -1}.get(layer.op, 0)
    for name in ("output", "join"):
        view = views[name]
        if view is not None:
            got = graph.buffer(view.buffer).level
            _require(got == level + step, what, f"{name} level", f"be {level + step}", got)
            channels = layer.out_channels // (4 if layer.op is Op.UP else 1)
            _require(
                view.channels == channels, what, f"{name} channels", f"be {channels}", view.channels
            )
    if layer.op is Op.UP:
        count = layer.out_channels
        _require(count % 4 == 0, what, "output channels", "be a multiple of 4", count)


def _check_numbers(graph: IntegerGraph, layer: Layer) -> None:
    low, high = contract.WEIGHT_BITS_MIN, contract.WEIGHT_BITS
    bits = layer.weight_bits
    _require(
        low <= bits <= high, f"layer {layer.name}", "weight bits", f"be in {low}..{high}", bits
    )
    for name, (values, low, high) in _number_ranges(graph, layer).items():
        outside = np.argwhere((values < low) | (values > high))
        if outside.size:
            index = tuple(int(i) for i in outside[0])
            raise ValueError(
                f"layer {layer.name}, channel {index[0]}: {name} must be in {low}..{high}, "
                f"got {int(values[index])}"
            )
    bound = graph.accumulator_bound(layer)
    worst = int(bound.argmax())
    if bound[worst] > contract.ACCUMULATOR_MAX:
        raise ValueError(
            f"layer {layer.name}, channel {worst}: accumulator bound must be at most "
            f"{contract.ACCUMULATOR_MAX}, got {int(bound[worst])}"
        )


def _number_ranges(graph: IntegerGraph, layer: Layer) -> dict[str, tuple[IntArray, int, int]]:
    limit = contract.weight_limit(layer.weight_bits)
    exponents = contract.WEIGHT_EXPONENT_MIN, contract.WEIGHT_EXPONENT_MAX
    ranges = {
        "weight": (layer.weight, -limit, limit),
        "weight_exponent": (layer.weight_exponent, *(exponents if graph.dyadic else (0, 0))),
        "bias": (layer.bias, -contract.ACCUMULATOR_MAX, contract.ACCUMULATOR_MAX),
    }
    if layer.multipliers is None:
        shifts = contract.SHIFT_MIN, contract.SHIFT_MAX
        joins = contract.JOIN_SHIFT_MIN, contract.JOIN_SHIFT_MAX
        ranges["requantisation shift"] = (graph.shift(layer), *shifts)
        ranges["join shift"] = (graph.join_shift(layer), *joins)
    else:
        m, r, n = layer.multipliers
        most = contract.MULTIPLIER_MAX
        ranges["multiplier"] = (m, 0, most)
        ranges["join multiplier"] = (r, 0, 0 if layer.join is None else most)
        shifts = contract.MULTIPLIER_SHIFT_MIN, contract.MULTIPLIER_SHIFT_MAX
        ranges["requantisation shift"] = (n, *shifts)
    return ranges


ARRAYS = ("weight", "weight_exponent", "bias")


def layer_arrays(layer: Layer) -> dict[str, IntArray]:
    """Name -> integers of a layer, its multipliers included when it has them."""
    arrays: dict[str, IntArray] = {name: getattr(layer, name) for name in ARRAYS}
    return arrays if layer.multipliers is None else arrays | layer.multipliers._asdict()
