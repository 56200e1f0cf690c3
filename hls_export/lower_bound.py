"""The least DRAM traffic that a stripe plan can have in a chip's SRAM: a bound, not a plan.

It holds for every plan of `hls_export.plan` whose groups are consecutive layers with one window per
buffer, whose items make in a step what their readers ask there, and whose layers that read the
image alone are all made again wherever they are read, or all stored; whatever its cuts, tiles,
modes, addresses and resident weights:

1. Of the offsets of a region, `bottom`, `left` and `right` follow from the group's layers alone;
   `top` is highest, and so every region and every window lowest, when all tensors are line buffers.
2. A window holds at least those rows, at least from the first item that touches it to the last.
   Where the sum of such windows at an item exceeds SRAM, no plan has the tile; elsewhere weights
   have at most what the busiest item leaves.
3. A load moves at least each row once, and in it the bands' columns with their halo. A group stores
   what a later one reads, once. The tail reads the image again, and writes it.
4. A step makes at most tile_height new rows, so a group has at least ceil(Hp / tile_height) steps
   in each of ceil(Wp / tile_width) bands, and weights that do not stay come with every one. Which
   stay is relaxed to fractions of layers, whose best is known: the most saved per byte of SRAM.
5. Of all tiles with the same numbers of steps and bands the smallest leaves the most SRAM; loads
   take the least columns of any.

The bound of a group is the least over all numbers of steps and bands, that of a network the least
over all cuts, by dynamic programming. The modes are relaxed tensor by tensor, and SRAM is never
fragmented, so no plan need reach it.
"""

import math

import numpy as np

from hls_export.group_shape import (
    Array,
    Draft,
    Options,
    Problem,
    Shape,
    covered,
    ways_to_remake,
)
from hls_export.npu import Chip
from quant.integer_graph import IMAGE, IntegerGraph


def least_traffic(graph: IntegerGraph, chip: Chip, options: Options | None = None) -> int:
    """DRAM bytes on one frame that no plan of the chip can undercut.

    options: frame, `longest` and `rematerialise` count. Raises ValueError when no plan fits SRAM.
    """
    options = (options or Options()).within(chip)
    tries = [Bound(graph, chip, options, again) for again in ways_to_remake(graph, options)]
    least = min(bound.network() for bound in tries)
    if math.isinf(least):
        raise ValueError(
            f"chip {chip.name}: SRAM of the smallest tiles must be at most {tries[0].limit} bytes, "
            "got more"
        )
    return math.floor(least)


class Bound(Problem):
    """The bounds of groups for one set of layers that are made again."""

    def __init__(
        self, graph: IntegerGraph, chip: Chip, options: Options, again: frozenset[str]
    ) -> None:
        super().__init__(graph, chip, options, again)
        self._loads: dict[tuple[object, ...], Array] = {}

    def network(self) -> float:
        """The least over all cuts; infinite when some layer fits no group."""
        least = [0.0]
        for end in range(1, len(self.graph.layers) + 1):
            best = math.inf
            for start in range(end - 1, -1, -1):
                if self.options.longest is not None and end - start > self.options.longest:
                    break
                drafts = self.drafts(start, end)
                if least[start] + self.least(drafts) < best:
                    best = min(best, least[start] + self.group(drafts))
            least.append(best)
        return least[-1]

    def group(self, drafts: tuple[Draft, ...]) -> float:
        """The bound of a group, over all tiles; infinite when none fits."""
        shape = Shape(self, drafts, frozenset(d.view.buffer for d in drafts if d.view is not None))
        tall, wide = self.padded
        unit = 1 << shape.depth
        heights, widths = (_smallest(unit, size)[0] for size in (tall, wide))
        rows, columns = (grid.ravel() for grid in np.meshgrid(heights, widths, indexing="ij"))
        room = self.limit - shape.peak(shape.needs.values(), rows, columns)
        loads = np.sum([self._load(shape, index) for index in range(len(drafts))], axis=0)
        tiles = -(-tall // rows) * -(-wide // columns)
        moved = np.tile(loads, len(heights)) + self._streamed(shape, np.maximum(room, 0), tiles)
        once = self.least([draft for draft in drafts if draft.layer is not None])
        return once + float(np.where(room >= 0, moved, math.inf).min())

    def _load(self, shape: Shape, index: int) -> Array:
        """Bytes of a load, by the number of bands from most to least; 0 for a layer."""
        draft, unit = shape.drafts[index], 1 << shape.depth
        level, span = shape.level(draft), shape.spans[index][1]
        key = unit, level, draft.view if draft.layer is None else None, span
        if key not in self._loads:
            widths, starts = _smallest(unit, self.padded[1])
            self._loads[key] = np.zeros(len(widths))
            if draft.layer is None and draft.view is not None:
                image = draft.view.buffer == IMAGE
                rows, columns = self.options.frame if image else self.padded
                every = np.arange(unit, self.padded[1] + 1, unit)
                bands = -(-self.padded[1] // every)
                made = covered(0, bands, every >> level, span, columns >> level)
                fewest = np.minimum.reduceat(made, starts)
                self._loads[key] = (rows >> level) * self.pixel_bytes(draft.view) * fewest
        return self._loads[key]

    def _streamed(self, shape: Shape, room: Array, tiles: Array) -> Array:
        """Bytes of weights that come again because they do not stay in `room` bytes."""
        layers = [
            (size, self.weight_bytes(draft.layer))
            for draft, size in zip(shape.drafts, shape.weights, strict=True)
            if draft.layer is not None
        ]
        again = np.zeros(len(room))
        for size, moved in sorted(layers, key=lambda layer: layer[0] / layer[1]):
            stays = np.minimum(room, size)
            room = room - stays
            again += moved * (1 - stays / size)
        return again * (tiles - 1)


def _smallest(unit: int, side: int) -> tuple[Array, Array]:
    """The smallest multiple of `unit` for each number of tiles along `side`, ascending, and its
    place among all multiples."""
    sizes = np.arange(unit, side + 1, unit)
    counts = -(-side // sizes)
    starts = np.flatnonzero(np.diff(counts, prepend=0))
    return sizes[starts], starts
