"""Corner cases of each operation as graphs of a few layers: vectors that a port is held against.

A case has one layer under test, `op`. Before it stand copies that bring the image's own values to
where the layer reads them, so every int8 value can be placed at will; behind it the tail that every
graph has. Each output channel of the layer under test is one corner: a single tap, a tie, a
saturation, an accumulator that meets its proof. docs/NUMERICS.md is the arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, Buffer, IntArray, IntegerGraph, Layer, View
from quant.intmath import UInt8Array

UNDER_TEST = "op"
INPUTS = 5  # channels of the map that a case reads: no multiple of a block
COPY_SHIFT = 6  # a copy weighs with 2^6 and shifts it away again
COLUMNS, ROWS = 19, 11  # of the frame of values; off the grid
SIZES = ((1, 1), (8, 1), (1, 9), (2, 2), (5, 3), (8, 8))  # columns, rows


@dataclass(frozen=True)
class Numbers:
    """Exponents of a case: of the layer's weights, of its output, of what joins (None: nothing).

    A weight exponent of None differs from channel to channel.
    """

    name: str
    weight: int | None
    output: int
    join: int | None
    relu: bool


# Shifts 1, 4..19, 24 and 1; join shifts 20 and 0: both ends of each range.
NUMBERS = (
    Numbers("least-shift", 0, 6, None, False),
    Numbers("every-shift", None, 3, None, True),
    Numbers("most-shift", 15, -2, 2, False),
    Numbers("least-join", 0, 6, 7, True),
)
# A tail has neither join nor ReLU.
TAIL_NUMBERS = tuple(
    replace(numbers, join=None, relu=False, output=contract.IMAGE_EXPONENT)
    for numbers in NUMBERS[:3]
)


@dataclass(frozen=True, eq=False)
class Case:
    """corners: what each output channel of the layer is for. frame: uint8 [H, W, 3]."""

    name: str
    graph: IntegerGraph
    frame: UInt8Array
    corners: tuple[str, ...]


def corner_cases(accumulator_bits: int = contract.ACCUMULATOR_BITS) -> Iterator[Case]:
    """Every case whose sums fit accumulator_bits, the same on every machine."""
    for case in _every_case(accumulator_bits):
        widths = (case.graph.accumulator_bits(layer) for layer in case.graph.layers)
        if max(widths) <= accumulator_bits:
            yield case


def _every_case(accumulator_bits: int) -> Iterator[Case]:
    limit = min((1 << (accumulator_bits - 1)) - 1, contract.ACCUMULATOR_MAX)
    values = value_frame(COLUMNS, ROWS)
    for op in Op:
        choices = TAIL_NUMBERS if op is Op.TAIL else NUMBERS
        for numbers in choices:
            for direct in (True, False):
                if direct and op is Op.UP:  # the image is no deeper level
                    continue
                for graph, corners in _graphs(op, numbers, direct, limit):
                    yield Case(graph.name, graph, values, corners)
        graph, corners = next(_graphs(op, choices[0], False, limit))
        for columns, rows in SIZES:
            name = f"{graph.name}-{columns}x{rows}"
            yield Case(name, graph, value_frame(columns, rows), corners)


def value_frame(columns: int, rows: int) -> UInt8Array:
    """uint8 [rows, columns, 3]: a third black, a third white, the rest hashed values of all sizes.

    Black and white are wide enough for whole windows, so that the extremes of a sum are reached.
    """
    y, x, c = np.ogrid[0:rows, 0:columns, 0 : contract.IMAGE_CHANNELS]
    place = ((y * columns + x) * contract.IMAGE_CHANNELS + c).astype(np.uint64)
    mixed = (place * 0x9E3779B1 + 0x85EBCA6B) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> np.uint64(15))) * 0xC2B2AE35) & 0xFFFFFFFF
    frame = (mixed >> np.uint64(11) & 255).astype(np.uint8)
    frame[:, 7:13] = 0
    frame[:, 13:] = contract.PIXEL_MAX
    return frame


def _graphs(
    op: Op, numbers: Numbers, direct: bool, limit: int
) -> Iterator[tuple[IntegerGraph, tuple[str, ...]]]:
    """The graphs of a case and their corners: one, but for the tail one per three corners.

    direct: the layer under test reads the image itself, else a copy of it.
    """
    inputs = contract.IMAGE_CHANNELS if direct else INPUTS
    window = (inputs, op.kernel, op.kernel)
    multiple = {Op.TAIL: contract.IMAGE_CHANNELS, Op.UP: 4}.get(op, 1)
    channels = list(_channels(window, numbers, limit, multiple))
    size = contract.IMAGE_CHANNELS if op is Op.TAIL else len(channels)
    name = f"{op.name.lower()}-{'image' if direct else 'map'}-{numbers.name}"
    for first in range(0, len(channels), size):
        group = channels[first : first + size]
        part = f"-{first // size}" if op is Op.TAIL else ""
        yield (
            _graph(name + part, op, numbers, direct, group),
            tuple(channel.corner for channel in group),
        )


def _graph(
    name: str, op: Op, numbers: Numbers, direct: bool, channels: list["_Channel"]
) -> IntegerGraph:
    tail = op is Op.TAIL
    levels = {Op.CONV3X3_STRIDE2: (0, 1), Op.UP: (1, 0)}
    input_level, output_level = levels.get(op, (0, 0))
    buffers = [Buffer(IMAGE, contract.IMAGE_CHANNELS, 0, contract.IMAGE_EXPONENT)]
    layers: list[Layer] = []

    def add_copy(name: str, channels: int, level: int, exponent: int) -> View:
        buffers.append(Buffer(name, channels, level, exponent))
        view = View(name, 0, channels)
        layers.append(_copy(name, view, level, exponent))
        return view

    source = View(IMAGE, 0, contract.IMAGE_CHANNELS)
    if not direct:
        source = add_copy("input", INPUTS, input_level, contract.IMAGE_EXPONENT)
    count = len(channels) // (4 if op is Op.UP else 1)
    join = None
    if numbers.join is not None:
        join = add_copy("join", count, output_level, numbers.join)
    output = None
    if not tail:
        buffers.append(Buffer("output", count, output_level, numbers.output))
        output = View("output", 0, count)
    layers.append(
        Layer(
            UNDER_TEST,
            op,
            source,
            output,
            join,
            numbers.relu,
            np.stack([channel.weight for channel in channels]).astype(np.int8),
            np.array([channel.exponent for channel in channels], np.int64),
            np.array([channel.bias for channel in channels], np.int64),
        )
    )
    if not tail:
        layers.append(_last())
    return IntegerGraph(name, 1, tuple(buffers), tuple(layers))


def _copy(name: str, view: View, level: int, exponent: int) -> Layer:
    """Channel c of the view takes channel c modulo 3 of the image; at level 1 every other pixel."""
    op = Op.CONV3X3_STRIDE2 if level else Op.CONV1X1
    weight = np.zeros((view.channels, contract.IMAGE_CHANNELS, op.kernel, op.kernel), np.int8)
    channels = np.arange(view.channels)
    weight[channels, channels % contract.IMAGE_CHANNELS, op.kernel // 2, op.kernel // 2] = (
        1 << COPY_SHIFT
    )
    weight_exponent = COPY_SHIFT + exponent - contract.IMAGE_EXPONENT
    return Layer(
        f"copy.{name}",
        op,
        View(IMAGE, 0, contract.IMAGE_CHANNELS),
        view,
        None,
        False,
        weight,
        np.full(view.channels, weight_exponent, np.int64),
        np.zeros(view.channels, np.int64),
    )


def _last() -> Layer:
    """The tail that every graph ends with: here it gives the image back."""
    channels = contract.IMAGE_CHANNELS
    return Layer(
        "tail",
        Op.TAIL,
        View(IMAGE, 0, channels),
        None,
        None,
        False,
        np.zeros((channels, channels, 3, 3), np.int8),
        np.full(channels, 1, np.int64),
        np.zeros(channels, np.int64),
    )


@dataclass(frozen=True, eq=False)
class _Corner:
    """What an output channel is for.

    weight  int64 [I, k, k]
    steps   the bias in output steps; ties lie at half of one
    off     added to the bias: a unit of the accumulator
    end     1 or -1: the bias is as far up or down as the accumulator's proof allows
    """

    name: str
    weight: IntArray
    steps: float = 0
    off: int = 0
    end: int = 0


@dataclass(frozen=True, eq=False)
class _Channel:
    """A corner with its numbers: exponent of the weights, bias."""

    corner: str
    weight: IntArray
    exponent: int
    bias: int


def _channels(
    window: tuple[int, int, int], numbers: Numbers, limit: int, multiple: int
) -> Iterator[_Channel]:
    corners = list(_corners(window))
    corners += [_Corner("dead", np.zeros(window, np.int64))] * (-len(corners) % multiple)
    for index, corner in enumerate(corners):
        exponent = numbers.weight
        if exponent is None:
            exponent = index % (contract.WEIGHT_EXPONENT_MAX + 1)
        least = numbers.output - contract.IMAGE_EXPONENT + contract.SHIFT_MIN
        exponent = max(exponent, least)
        acc_exponent = contract.IMAGE_EXPONENT + exponent
        half_shift = acc_exponent - numbers.output - 1
        rest = -contract.ACTIVATION_MIN * int(np.abs(corner.weight).sum()) + (1 << half_shift)
        if numbers.join is not None:
            rest += -contract.ACTIVATION_MIN << (acc_exponent - numbers.join)
        bias = (round(2 * corner.steps) << half_shift) + corner.off + corner.end * limit
        yield _Channel(
            corner.name, corner.weight, exponent, int(np.clip(bias, rest - limit, limit - rest))
        )


def _corners(window: tuple[int, int, int]) -> Iterator[_Corner]:
    inputs, kernel, _ = window
    middle = kernel // 2
    nothing = np.zeros(window, np.int64)
    for tap in range(kernel * kernel):
        for channel in range(inputs) if kernel == 1 else (tap % inputs,):
            weight = nothing.copy()
            weight[channel, tap // kernel, tap % kernel] = 64 - 2 * tap
            yield _Corner(f"tap {tap // kernel},{tap % kernel} of input {channel}", weight)
    single = nothing.copy()
    single[0, middle, middle] = 1
    yield _Corner("every value, ties at a shift of 1", single)
    yield _Corner("every value negated, beside a tie", -single, steps=-0.5)
    for tie in (0.5, -0.5, 2.5, -2.5):
        yield _Corner(f"tie at {tie}", nothing, steps=tie)
        yield _Corner(f"tie at {tie}, just below", nothing, steps=tie, off=-1)
    for value in (127, 127.5, -128, -128.5, -129):
        yield _Corner(f"value {value}", nothing, steps=value)
    highest = np.full(window, contract.WEIGHT_MAX, np.int64)
    yield _Corner("saturates high", highest)
    yield _Corner("saturates low", -highest)
    # On black, q = -128, every product of these has the sign of the bias.
    yield _Corner("highest accumulator", -highest, end=1)
    yield _Corner("lowest accumulator", highest, end=-1)
    yield _Corner("dead", nothing)
