"""Addresses of the activation buffers: one plan per graph, valid for every image size.

An image is padded to Wp x Hp, multiples of grid = 2^levels, and has (Wp / grid) * (Hp / grid)
cells. A buffer at `level` with C channels takes C * 4^(levels - level) bytes per cell, so sizes,
addresses and the arena all scale with the number of cells alone: a plan is made once, per cell.
A growth buffer is one allocation, so joining its members costs nothing. Buffers share bytes when
no layer needs both.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from quant.integer_graph import IMAGE, Buffer, IntegerGraph, Layer, View


@dataclass(frozen=True)
class Allocation:
    """Bytes [address, end) per cell of a buffer, live from layer `first` to layer `last`."""

    buffer: str
    address: int
    size: int
    first: int
    last: int

    @property
    def end(self) -> int:
        return self.address + self.size

    def meets(self, other: "Allocation") -> bool:
        """Whether some layer needs both."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """Allocations in the graph's order of buffers, the image left out; `arena` bytes per cell."""

    alignment: int
    arena: int
    allocations: tuple[Allocation, ...]

    def __getitem__(self, buffer: str) -> Allocation:
        return self.by_name[buffer]

    @functools.cached_property
    def by_name(self) -> Mapping[str, Allocation]:
        return {allocation.buffer: allocation for allocation in self.allocations}

    @property
    def peak(self) -> int:
        """Bytes per cell live at the busiest layer: no plan can need less."""
        return max(
            sum(a.size for a in self.allocations if a.first <= layer <= a.last)
            for layer in range(max(a.last for a in self.allocations) + 1)
        )


def cells(levels: int, height: int, width: int) -> int:
    """Cells of an image of height x width pixels padded to the grid."""
    return math.prod(math.ceil(size / (1 << levels)) for size in (height, width))


def check_size(what: str, height: int, width: int) -> None:
    """Raise ValueError unless both are positive."""
    for side, size in (("height", height), ("width", width)):
        if size < 1:
            raise ValueError(f"{what}: {side} must be at least 1, got {size}")


def level_size(levels: int, height: int, width: int, level: int) -> tuple[int, int]:
    """Rows and columns at a level of an image of height x width pixels padded to the grid."""
    rows, columns = (-(-size >> levels) << levels >> level for size in (height, width))
    return rows, columns


def bytes_per_cell(buffer: Buffer, levels: int) -> int:
    """Bytes of a buffer per cell."""
    return buffer.channels * (buffer.bits // 8) << 2 * (levels - buffer.level)


def views(layer: Layer) -> tuple[View, ...]:
    """The views that a layer touches."""
    return tuple(view for view in (layer.input, layer.join, layer.output) if view is not None)


def lifetimes(graph: IntegerGraph) -> dict[str, tuple[int, int]]:
    """(first, last) layer that touches each buffer but the image; both ends are live.

    Raises ValueError for a buffer that no layer touches.
    """
    found: dict[str, tuple[int, int]] = {}
    for index, layer in enumerate(graph.layers):
        for view in views(layer):
            first, _ = found.get(view.buffer, (index, index))
            found[view.buffer] = (first, index)
    for buffer in graph.buffers:
        if buffer.name not in found and buffer.name != IMAGE:
            raise ValueError(f"buffer {buffer.name}: users must be at least one layer, got none")
    found.pop(IMAGE, None)
    return found


def plan_memory(graph: IntegerGraph, alignment: int) -> Plan:
    """Place the buffers with `place`.

    alignment: bytes; every address per cell is a multiple of it. The plan returned has passed
    `check_plan`.
    """
    spans = lifetimes(graph)
    sizes = {buffer.name: bytes_per_cell(buffer, graph.levels) for buffer in graph.buffers}
    names = [buffer.name for buffer in graph.buffers if buffer.name in spans]
    addresses, arena = place([Request(sizes[name], *spans[name]) for name in names], alignment)
    plan = Plan(
        alignment,
        arena,
        tuple(
            Allocation(name, address, sizes[name], *spans[name])
            for name, address in zip(names, addresses, strict=True)
        ),
    )
    check_plan(graph, plan)
    return plan


@dataclass(frozen=True)
class Request:
    """Bytes wanted from time `first` to time `last`, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: "Request") -> bool:
        return self.first <= other.last and other.first <= self.last


def place(requests: Sequence[Request], alignment: int) -> tuple[list[int], int]:
    """Addresses for requests, apart while both live, and the aligned end of all.

    Each goes into the smallest gap that holds it, in several orders: the largest first, the longest
    lived first, as they begin; the lowest end wins.
    """
    orders: tuple[Callable[[Request], tuple[int, ...]], ...] = (
        lambda r: (-r.size, r.first, r.last),
        lambda r: (r.first - r.last, -r.size, r.first),
        lambda r: (r.first, -r.last, -r.size),
        lambda r: (r.size * (r.first - r.last - 1), r.first),
    )
    tries = [_place_in_order(requests, order, alignment) for order in orders]
    return min(tries, key=lambda found: found[1])


def _place_in_order(
    requests: Sequence[Request], order: Callable[[Request], tuple[int, ...]], alignment: int
) -> tuple[list[int], int]:
    addresses = [0] * len(requests)
    placed: list[int] = []
    for index in sorted(range(len(requests)), key=lambda i: (order(requests[i]), i)):
        wanted = requests[index]
        others = [
            (addresses[other], addresses[other] + requests[other].size)
            for other in placed
            if requests[other].meets(wanted)
        ]
        addresses[index] = _best_gap(others, wanted.size, alignment)
        placed.append(index)
    ends = [address + wanted.size for address, wanted in zip(addresses, requests, strict=True)]
    return addresses, align(max(ends, default=0), alignment)


_Size = TypeVar("_Size", int, npt.NDArray[np.int64])


def align(size: _Size, alignment: int) -> _Size:
    """The next multiple of `alignment`, of a number or an array."""
    return -(-size // alignment) * alignment


def _best_gap(others: list[tuple[int, int]], size: int, alignment: int) -> int:
    """Start of the smallest gap between `others`, [start, end), that holds `size`; else the end."""
    end, best = 0, None
    for start, stop in sorted(others):
        gap = start - end
        if gap >= size and (best is None or gap < best[0]):
            best = (gap, end)
        end = max(end, align(stop, alignment))
    return end if best is None else best[1]


def check_plan(graph: IntegerGraph, plan: Plan) -> None:
    """Prove a plan against the graph, whoever made it.

    Raises ValueError when an allocation has another size or lifetime than the graph says, a
    misaligned address or one outside the arena, or when two live buffers overlap.
    """
    spans = lifetimes(graph)
    names = [allocation.buffer for allocation in plan.allocations]
    expected_names = [buffer.name for buffer in graph.buffers if buffer.name in spans]
    _require(names == expected_names, "plan", "buffers", f"be {expected_names}", names)
    for allocation in plan.allocations:
        what = f"plan, buffer {allocation.buffer}"
        size = bytes_per_cell(graph.buffer(allocation.buffer), graph.levels)
        _require(allocation.size == size, what, "size", f"be {size}", allocation.size)
        span = (allocation.first, allocation.last)
        expected = spans[allocation.buffer]
        _require(span == expected, what, "lifetime", f"be {expected}", span)
        _require(
            allocation.address % plan.alignment == 0,
            what,
            "address",
            f"be a multiple of {plan.alignment}",
            allocation.address,
        )
        _require(
            allocation.address >= 0 and allocation.end <= plan.arena,
            what,
            "bytes",
            f"lie within the arena of {plan.arena}",
            (allocation.address, allocation.end),
        )
    _require(
        plan.arena % plan.alignment == 0,
        "plan",
        "arena",
        f"be a multiple of {plan.alignment}",
        plan.arena,
    )
    for one, other in itertools.combinations(plan.allocations, 2):
        apart = one.end <= other.address or other.end <= one.address
        _require(
            apart or not one.meets(other),
            f"plan, buffers {one.buffer} and {other.buffer}",
            "bytes",
            "be apart while both live",
            ((one.address, one.end), (other.address, other.end)),
        )


def _require(holds: bool, what: str, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{what}: {name} must {rule}, got {value}")
