"""The denoiser's layers, buffers and views, from its widths alone: what is written where.

This is the integer side's account of the model's shape for the Choices that can be lowered
(docs/MODEL.md): `post_up` skips, pixel shuffle, `output` residual, global subtraction. Layer names
are the module names of `quant.modules`, so lowering looks each layer up by its name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, Buffer, IntArray, IntegerGraph, Layer, Requantisation, View


@dataclass(frozen=True)
class Topology:
    """Channels and growth per level, from 0 (full resolution) to the deepest."""

    widths: tuple[int, ...]
    growths: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, values in (("widths", self.widths), ("growths", self.growths)):
            if not 2 <= len(values) <= contract.LEVELS_MAX + 1 or min(values) < 1:
                raise ValueError(
                    f"topology: {name} must be 2..{contract.LEVELS_MAX + 1} positive numbers, "
                    f"got {values}"
                )
        if len(self.widths) != len(self.growths):
            raise ValueError(
                f"topology: growths must match the {len(self.widths)} widths, got {self.growths}"
            )

    @property
    def levels(self) -> int:
        return len(self.widths) - 1


@dataclass(frozen=True)
class LayerShape:
    """A layer before it has numbers. `weight_shape` is (O, I, k, k)."""

    name: str
    op: Op
    input: View
    output: View | None
    join: View | None
    relu: bool

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        if self.output is None:
            channels = contract.IMAGE_CHANNELS
        else:
            channels = self.output.channels * (4 if self.op is Op.UP else 1)
        return channels, self.input.channels, self.op.kernel, self.op.kernel


def blocks(topology: Topology) -> Iterator[tuple[str, int]]:
    """Names and levels of the dense blocks in execution order."""
    levels = range(topology.levels)
    yield from ((f"encoder.{level}", level) for level in levels)
    yield "middle", topology.levels
    yield from ((f"decoder.{level}", level) for level in reversed(levels))


def buffer_shapes(topology: Topology) -> Iterator[tuple[str, int, int]]:
    """(name, channels, level) of every buffer: per block a growth buffer and an output."""
    yield IMAGE, contract.IMAGE_CHANNELS, 0
    for name, level in blocks(topology):
        width, growth = topology.widths[level], topology.growths[level]
        yield f"{name}.dense", width + 3 * growth, level
        yield f"{name}.out", width, level
    yield "second", topology.widths[0], 0


def layer_shapes(topology: Topology) -> Iterator[LayerShape]:
    """Every layer in execution order."""
    widths, levels = topology.widths, topology.levels

    def entry(name: str, level: int) -> View:
        return View(f"{name}.dense", 0, widths[level])

    def out(name: str, level: int) -> View:
        return View(f"{name}.out", 0, widths[level])

    def dense(name: str, level: int) -> Iterator[LayerShape]:
        width, growth, buffer = widths[level], topology.growths[level], f"{name}.dense"
        for index in range(3):
            end = width + index * growth
            yield LayerShape(
                f"{buffer}.conv{index + 1}",
                Op.CONV3X3,
                View(buffer, 0, end),
                View(buffer, end, growth),
                None,
                relu=True,
            )
        joined = View(buffer, 0, width + 3 * growth)
        yield LayerShape(
            f"{buffer}.fuse", Op.CONV1X1, joined, out(name, level), entry(name, level), relu=False
        )

    head = entry("encoder.0", 0)
    yield LayerShape("head", Op.CONV3X3, View(IMAGE, 0, contract.IMAGE_CHANNELS), head, None, False)
    for level in range(levels):
        name, below = f"encoder.{level}", level + 1
        yield from dense(name, level)
        following = "middle" if below == levels else f"encoder.{below}"
        yield LayerShape(
            f"{name}.down",
            Op.CONV3X3_STRIDE2,
            out(name, level),
            entry(following, below),
            None,
            relu=False,
        )
    yield from dense("middle", levels)
    for level in reversed(range(levels)):
        name, above = f"decoder.{level}", level + 1
        previous = "middle" if above == levels else f"decoder.{above}"
        yield LayerShape(
            f"{name}.up",
            Op.UP,
            out(previous, above),
            entry(name, level),
            out(f"encoder.{level}", level),
            relu=False,
        )
        yield from dense(name, level)
    second = View("second", 0, widths[0])
    yield LayerShape("second", Op.CONV3X3, out("decoder.0", 0), second, head, relu=False)
    yield LayerShape("tail", Op.TAIL, second, None, None, relu=False)


class Numbers(NamedTuple):
    """The numbers of a layer, as `quant.integer_graph.Layer` explains them."""

    weight: IntArray
    weight_exponent: IntArray
    bias: IntArray
    weight_bits: int = contract.WEIGHT_BITS
    multipliers: Requantisation | None = None


def assemble(
    topology: Topology,
    name: str,
    exponents: Mapping[str, int],
    numbers: Callable[[LayerShape], Numbers],
    bits: Mapping[str, int] = MappingProxyType({}),
    scales: Mapping[str, float] | None = None,
) -> IntegerGraph:
    """Fill the shapes with numbers.

    exponents: buffer name -> exponent, for every buffer but the image; none in a multiplier graph.
    numbers: layer -> its numbers. bits: buffer name -> 8 or 16, where it is not 8.
    scales: of a multiplier graph, buffer name -> the value of one unit, the image included.
    """
    dyadic = scales is None
    image = contract.IMAGE_EXPONENT if dyadic else 0
    return IntegerGraph(
        name=name,
        levels=topology.levels,
        buffers=tuple(
            Buffer(
                buffer,
                channels,
                level,
                image if buffer == IMAGE else exponents[buffer] if dyadic else 0,
                bits.get(buffer, contract.ACTIVATION_BITS),
                None if scales is None else scales[buffer],
            )
            for buffer, channels, level in buffer_shapes(topology)
        ),
        layers=tuple(
            Layer(
                shape.name,
                shape.op,
                shape.input,
                shape.output,
                shape.join,
                shape.relu,
                *numbers(shape),
            )
            for shape in layer_shapes(topology)
        ),
        arithmetic=contract.ARITHMETIC if dyadic else contract.MULTIPLIER_ARITHMETIC,
    )
