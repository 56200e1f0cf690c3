"""Search for the stripe plan of least cost: which layers run together, in which tiles.

Cost is DRAM bytes on one frame, plus what recomputation takes from the array in bytes that DRAM
could have moved meanwhile, so that halo is neither free nor shunned. Dynamic programming over the
cuts between groups is exact given the cost of each group; a group's cost is the least over tile
sizes (all at once, as arrays) and modes of its windows: all line buffers, all recomputed, and from
the better of both one window after the other flipped where it pays. Layers that read the image
alone may be made again wherever they are read: both ways are planned, the cheaper wins.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hls_export import blobs, memory
from hls_export.group_shape import Draft, Options, Problem, Shape, ways_to_remake
from hls_export.npu import Chip
from hls_export.plan import Group, Spill, StripePlan
from quant.integer_graph import IMAGE, IntegerGraph, View

# Longer groups, in items, are not tried with all windows recomputed, nor with some of them: their
# halo grows with each layer, and line buffers have won long before.
RECOMPUTED, FLIPPED = 16, 8


def plan_stripes(graph: IntegerGraph, chip: Chip, options: Options | None = None) -> StripePlan:
    """The plan of least cost that is found.

    Raises ValueError naming layer, need and limit when a layer does not fit the chip's SRAM in the
    smallest tile.
    """
    options = (options or Options()).within(chip)
    known: dict[tuple[Draft, ...], Found | None] = {}
    searches = [
        Search(graph, chip, options, again, known) for again in ways_to_remake(graph, options)
    ]
    best = min(searches, key=lambda search: search.cost)
    return best.assemble()


@dataclass(frozen=True, eq=False)
class Found:
    """A group that fits: its cost, items and windows, tile, addresses."""

    cost: float
    drafts: tuple[Draft, ...]
    group: Group


class Search(Problem):
    """Dynamic programming over cuts for one set of rematerialised layers."""

    def __init__(
        self,
        graph: IntegerGraph,
        chip: Chip,
        options: Options,
        again: frozenset[str],
        known: dict[tuple[Draft, ...], Found | None],
    ) -> None:
        super().__init__(graph, chip, options, again)
        self.known = known  # groups found by other searches, with no layer that is made again
        count = len(graph.layers)
        best: list[tuple[float, int, Found | None]] = [(0.0, 0, None)]
        for end in range(1, count + 1):
            best.append(self._best_ending(end, best))
        self.cost = best[count][0]
        self.found: list[Found] = []
        end = count
        while end:
            _, start, found = best[end]
            assert found is not None
            self.found.insert(0, found)
            end = start

    def _best_ending(
        self, end: int, best: Sequence[tuple[float, int, Found | None]]
    ) -> tuple[float, int, Found | None]:
        choice: tuple[float, int, Found | None] = (math.inf, 0, None)
        misses = 0
        for start in range(end - 1, -1, -1):
            if self.options.longest is not None and end - start > self.options.longest:
                break
            if best[start][0] + self.least(self.drafts(start, end)) >= choice[0]:
                continue
            found = self.group(start, end)
            if found is None:
                misses += 1
                if start == end - 1 and self.graph.layers[start].name not in self.again:
                    self._refuse(start)
                if misses > 4:
                    break
                continue
            total = best[start][0] + found.cost
            if total < choice[0]:
                choice = (total, start, found)
        return choice

    def _refuse(self, index: int) -> None:
        drafts = self.drafts(index, index + 1)
        shape = Shape(self, drafts, frozenset())
        need = int(shape.live(*self.tiles(shape.depth)).min())
        raise ValueError(
            f"chip {self.chip.name}, layer {self.graph.layers[index].name}: SRAM of the smallest "
            f"tile must be at most {self.limit} bytes, got {need}"
        )

    def group(self, start: int, end: int) -> Found | None:
        """The cheapest way to run layers [start, end) together, or None when none fits."""
        drafts = self.drafts(start, end)
        if self.made_elsewhere(drafts):
            return None
        shared = not any(
            draft.layer is not None and draft.layer.name in self.again for draft in drafts
        )
        if not shared:
            return self._cheapest(drafts)
        if drafts not in self.known:
            self.known[drafts] = self._cheapest(drafts)
        return self.known[drafts]

    def _cheapest(self, drafts: tuple[Draft, ...]) -> Found | None:
        names = tuple(dict.fromkeys(d.view.buffer for d in drafts if d.view is not None))
        starts = []
        if self.options.keep:
            starts.append(frozenset(names))
        if self.options.recompute and (len(drafts) <= RECOMPUTED or not self.options.keep):
            starts.append(frozenset())
        tried = {keep: self._evaluate(drafts, keep) for keep in starts}
        keep = min(tried, key=lambda k: tried[k].cost)
        if len(tried) == 2 and len(drafts) <= FLIPPED:
            for name in names:
                flipped = keep ^ {name}
                tried[flipped] = self._evaluate(drafts, flipped)
                if tried[flipped].cost < tried[keep].cost:
                    keep = flipped
        for candidate in sorted(tried.values(), key=lambda c: c.cost):
            found = self._place(drafts, candidate)
            if found is not None:
                return found
        return None

    def _evaluate(self, drafts: tuple[Draft, ...], keep: frozenset[str]) -> "Candidate":
        shape = Shape(self, drafts, keep)
        rows, columns = self.tiles(shape.depth)
        live = shape.live(rows, columns)
        if live.min() > self.limit:
            return Candidate(shape, math.inf, ())
        cost = shape.cost(rows, columns, live)
        cost[live > self.limit] = math.inf
        order = np.argsort(cost, kind="stable")[:4]
        return Candidate(
            shape,
            float(cost[order[0]]),
            tuple((float(cost[i]), int(rows[i]), int(columns[i])) for i in order),
        )

    def _place(self, drafts: tuple[Draft, ...], candidate: "Candidate") -> Found | None:
        for cost, height, width in candidate.tiles:
            if math.isinf(cost):
                return None
            group = candidate.shape.place(height, width, self.limit)
            if group is not None:
                return Found(cost, drafts, group)
        return None

    def assemble(self) -> StripePlan:
        """Addresses in DRAM, and items that know their spills."""
        spans: dict[View, list[int]] = {}
        for index, found in enumerate(self.found):
            for draft in found.drafts:
                view = draft.view
                if view is None or view.buffer == IMAGE:
                    continue
                if draft.stores:
                    spans[view] = [index, index]
                elif draft.layer is None:
                    spans[view][1] = index
        alignment = self.chip.capability.alignment
        shift = self.graph.levels
        wanted = [
            memory.Request(
                self.pixel_bytes(view) << 2 * (shift - self.levels[view.buffer]), first, last
            )
            for view, (first, last) in spans.items()
        ]
        addresses, dram = memory.place(wanted, alignment)
        spills = tuple(
            Spill(view, address, request.first, request.last)
            for view, address, request in zip(spans, addresses, wanted, strict=True)
        )
        index_of = {spill.view: index for index, spill in enumerate(spills)}
        groups = []
        for found in self.found:
            items = [
                dataclasses.replace(item, spill=index_of[draft.view])
                if draft.view in index_of and (draft.stores or draft.layer is None)
                else item
                for draft, item in zip(found.drafts, found.group.items, strict=True)
            ]
            groups.append(dataclasses.replace(found.group, items=tuple(items)))
        sram = max(memory.align(_end(group, self.graph, self.chip), alignment) for group in groups)
        return StripePlan(alignment, sram, dram, tuple(groups), spills)


def _end(group: Group, graph: IntegerGraph, chip: Chip) -> int:
    """End of a group's SRAM: windows and resident weights."""
    block = chip.capability.channel_block
    sizes = {layer.name: blobs.stream_bytes(layer.weight.shape, block) for layer in graph.layers}
    ends = [window.end for window in group.windows]
    ends += [
        item.weight_address + sizes[item.layer]
        for item in group.items
        if item.layer is not None and item.weight_address is not None
    ]
    return max(ends)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Modes with their least cost; tiles: (cost, height, width), best first."""

    shape: "Shape"
    cost: float
    tiles: tuple[tuple[float, int, int], ...]
