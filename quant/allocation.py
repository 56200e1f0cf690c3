"""Bits under a budget: which buffers get 16, which layers' weights go below 8.

What the quantisation of each tensor costs alone (`quant.sensitivity`) is taken to add up. From the
least bits upward, the step that wins most dB for its cost is taken until none fits: the path is the
curve of quality against cost, and where it stops is the allocation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quant import contract
from quant.integer_graph import IMAGE
from quant.precision import Precision
from quant.topology import LayerShape, Topology, layer_shapes

Kind = Literal["activations", "weights"]
Place = tuple[Kind, str]
"""A buffer's activations or a layer's weights, by name."""
Bits = Mapping[Place, int]
Losses = Mapping[Place, Mapping[int, float]]
LayerCost = Callable[[LayerShape, Bits], float]
"""What a layer costs with the bits of its weights and of the buffers that it touches."""


@dataclass(frozen=True)
class Point:
    """A state of the path: foreseen loss in dB, cost in the cost's unit, bits of every tensor."""

    loss: float
    cost: float
    bits: dict[Place, int]


def activations(bits: Bits, buffer: str) -> int:
    """Bits of a buffer; the image has 8."""
    return bits.get(("activations", buffer), contract.ACTIVATION_BITS)


def mac_bits(shape: LayerShape, bits: Bits, macs: Mapping[str, int]) -> float:
    """Multiply-accumulates times bits of both factors, over 64: 1 a MAC of 8 by 8 bits."""
    factors = bits["weights", shape.name] * activations(bits, shape.input.buffer)
    return macs[shape.name] * factors / contract.WEIGHT_BITS**2


def allocate(topology: Topology, losses: Losses, cost: LayerCost, budget: float) -> list[Point]:
    """The path of states from the least bits to the last one within the budget.

    losses: place -> bits -> dB, for each width that may be chosen.
    Raises ValueError when the least bits already cost more than the budget.
    """
    shapes = list(layer_shapes(topology))
    touching = {place: [shape for shape in shapes if place in _places(shape)] for place in losses}
    bits = {place: min(widths) for place, widths in losses.items()}
    costs = {shape.name: cost(shape, bits) for shape in shapes}
    path = [Point(_total(losses, bits), sum(costs.values()), dict(bits))]
    if path[0].cost > budget:
        raise ValueError(
            f"allocation: budget must be at least what the least bits cost, {path[0].cost:g}, "
            f"got {budget:g}"
        )
    while step := _best_step(bits, losses, touching, cost, costs, budget - sum(costs.values())):
        bits[step.place] = step.bits
        costs.update(step.costs)
        path.append(Point(_total(losses, bits), sum(costs.values()), dict(bits)))
    return path


@dataclass(frozen=True)
class _Step:
    place: Place
    bits: int
    costs: dict[str, float]


def _best_step(
    bits: dict[Place, int],
    losses: Losses,
    touching: Mapping[Place, Sequence[LayerShape]],
    cost: LayerCost,
    costs: Mapping[str, float],
    left: float,
) -> _Step | None:
    """The affordable step of most dB per cost, the first of equals; None when none wins any."""
    best: tuple[float, _Step] | None = None
    for place, widths in losses.items():
        for wider in widths:
            won = widths[bits[place]] - widths[wider]
            if wider <= bits[place] or won <= 0:
                continue
            tried = {**bits, place: wider}
            new = {shape.name: cost(shape, tried) for shape in touching[place]}
            added = sum(new.values()) - sum(costs[layer] for layer in new)
            if added > left:
                continue
            rate = won / max(added, 1e-12)
            if best is None or rate > best[0]:
                best = rate, _Step(place, wider, new)
    return None if best is None else best[1]


def _places(shape: LayerShape) -> set[Place]:
    views = (shape.input, shape.output, shape.join)
    buffers = {view.buffer for view in views if view is not None} - {IMAGE}
    return {("weights", shape.name), *(("activations", buffer) for buffer in buffers)}


def _total(losses: Losses, bits: Bits) -> float:
    return sum(widths[bits[place]] for place, widths in losses.items())


def as_precision(bits: Bits) -> Precision:
    """The precision file's content; what has 8 bits is not named."""
    named = [(kind, name, width) for (kind, name), width in bits.items() if width != 8]
    return Precision.model_validate(
        {
            "activation_bits": {
                name: width for kind, name, width in named if kind == "activations"
            },
            "weight_bits": {name: width for kind, name, width in named if kind == "weights"},
        }
    )
