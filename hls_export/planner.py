"""Search for the stripe plan of least cost: which layers run together, in which tiles.

Cost is DRAM bytes on one frame, plus what recomputation takes from the array in bytes that DRAM
could have moved meanwhile, so that halo is neither free nor shunned. Dynamic programming over the
cuts between groups is exact given the cost of each group; a group's cost is the least over tile
sizes (all at once, as arrays) and modes of its windows: all line buffers, all recomputed, and from
the better of both one window after the other flipped where it pays. Layers that read the image alone may be
computed again wherever they are read (rematerialised): both ways are planned, the cheaper wins.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hls_export import blobs, memory, plan
from hls_export.npu import Chip
from hls_export.plan import Group, Item, Spill, StripePlan, Window
from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View

Array = npt.NDArray[Any]
FRAME = (1080, 1920)  # what plans are tuned for: height, width
TALLEST = 256  # tile rows that are tried
# Longer groups, in items, are not tried with all windows recomputed, nor with some of them: their
# halo grows with each layer, and line buffers have won long before.
RECOMPUTED, FLIPPED = 16, 8


@dataclass(frozen=True)
class Options:
    """What the search may do; frame: height, width that it is tuned for.

    recompute: windows may be recomputed; keep: windows may be line buffers; full_width: tiles span
    the frame; rematerialise: layers may stand in several groups; longest: layers of a group.
    """

    frame: tuple[int, int] = FRAME
    recompute: bool = True
    keep: bool = True
    full_width: bool = False
    rematerialise: bool = True
    longest: int | None = None


@dataclass(frozen=True)
class Draft:
    """Items of a group before tiles are chosen: what they write and read, and whether they store.

    layer: None for a load. reads: (view, span rule) pairs, the input first.
    """

    layer: Layer | None
    view: View | None
    stores: bool

    @property
    def reads(self) -> Iterator[tuple[View, Op]]:
        if self.layer is not None:
            yield self.layer.input, self.layer.op
            if self.layer.join is not None:
                yield self.layer.join, Op.CONV1X1  # what joins lies where it is written


def overlap(one: View, other: View) -> bool:
    """Whether two views share channels."""
    return one.buffer == other.buffer and one.offset < other.end and other.offset < one.end


def plan_stripes(graph: IntegerGraph, chip: Chip, options: Options | None = None) -> StripePlan:
    """The plan of least cost that is found.

    Raises ValueError naming layer, need and limit when a layer does not fit the chip's SRAM in the
    smallest tile.
    """
    options = options or Options()
    capability = chip.capability
    height, width = options.frame
    frame = min(height, capability.max_height), min(width, capability.max_width)
    options = dataclasses.replace(options, frame=frame)
    heads = tuple(
        layer.name
        for layer in graph.layers
        if layer.input.buffer == IMAGE and layer.join is None and layer.output is not None
    )
    tries = [frozenset[str]()] + ([frozenset(heads)] if options.rematerialise and heads else [])
    known: dict[tuple[Draft, ...], Found | None] = {}
    searches = [Search(graph, chip, options, again, known) for again in tries]
    best = min(searches, key=lambda search: search.cost)
    return best.assemble()


@dataclass(frozen=True, eq=False)
class Found:
    """A group that fits: its cost, items and windows, tile, addresses."""

    cost: float
    drafts: tuple[Draft, ...]
    group: Group


class Search:
    """Dynamic programming over cuts for one set of rematerialised layers."""

    def __init__(
        self,
        graph: IntegerGraph,
        chip: Chip,
        options: Options,
        again: frozenset[str],
        known: dict[tuple[Draft, ...], Found | None],
    ) -> None:
        self.known = known  # groups found by other searches, with no layer that is made again
        self.graph, self.chip, self.options, self.again = graph, chip, options, again
        self.levels = {buffer.name: buffer.level for buffer in graph.buffers}
        self._tiles: dict[int, tuple[Array, Array]] = {}
        self._columns: dict[tuple[int, int, int, plan.Span], Array] = {}
        self.limit = chip.performance.sram_bytes
        performance = chip.performance
        rate = performance.input_lanes * performance.output_lanes * performance.pixel_lanes
        # Bytes that DRAM moves while the array makes one multiply-accumulate.
        self.price = performance.dram_bytes_per_second / performance.clock_hz / rate
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
            if best[start][0] + self._least(self.drafts(start, end)) >= choice[0]:
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

    def _least(self, drafts: tuple[Draft, ...]) -> int:
        """Bytes that a group moves whatever its tiles: tensors, images and weights once."""
        height, width = self.options.frame
        grid = self.graph.grid
        pixels = (-(-height // grid) * grid) * (-(-width // grid) * grid)
        total = 0
        for draft in drafts:
            if draft.layer is not None:
                block = self.chip.capability.channel_block
                total += plan.layer_weight_bytes(draft.layer, block)
            if draft.view is None:
                total += 2 * height * width * contract.IMAGE_CHANNELS
            elif draft.view.buffer == IMAGE:
                total += height * width * contract.IMAGE_CHANNELS
            elif draft.layer is None or draft.stores:
                total += (pixels >> 2 * self.levels[draft.view.buffer]) * draft.view.channels
        return total

    def _refuse(self, index: int) -> None:
        drafts = self.drafts(index, index + 1)
        shape = Shape(self, drafts, frozenset())
        need = int(shape.live(*self.tiles(shape)).min())
        raise ValueError(
            f"chip {self.chip.name}, layer {self.graph.layers[index].name}: SRAM of the smallest "
            f"tile must be at most {self.limit} bytes, got {need}"
        )

    def drafts(self, start: int, end: int) -> tuple[Draft, ...]:
        """Loads, rematerialised layers and layers [start, end), each load before its first user."""
        layers = self.graph.layers
        inside = layers[start:end]
        later = [view for layer in layers[end:] for view, _ in Draft(layer, None, False).reads]
        written: list[View] = []
        drafts: list[Draft] = []

        def bring(layer: Layer) -> None:
            for view, _ in Draft(layer, None, False).reads:
                if view.buffer == IMAGE:
                    whole = View(IMAGE, 0, contract.IMAGE_CHANNELS)
                    if whole not in written:
                        written.append(whole)
                        drafts.append(Draft(None, whole, False))
                    continue
                for source in layers[:start]:
                    output = source.output
                    if output is None or not overlap(output, view) or output in written:
                        continue
                    written.append(output)
                    if source.name in self.again:
                        bring(source)
                        drafts.append(Draft(source, output, False))
                    else:
                        drafts.append(Draft(None, output, False))

        for layer in inside:
            bring(layer)
            output = layer.output
            if output is not None:
                written.append(output)
            stores = (
                output is not None
                and layer.name not in self.again
                and any(overlap(output, view) for view in later)
            )
            drafts.append(Draft(layer, output, stores))
        return tuple(drafts)

    def tiles(self, shape: "Shape") -> tuple[Array, Array]:
        """Tile heights and widths that are tried: multiples of the group's unit."""
        if shape.depth in self._tiles:
            return self._tiles[shape.depth]
        unit = 1 << shape.depth
        grid = self.graph.grid
        tall, wide = (-(-size // grid) * grid for size in self.options.frame)
        heights = [h for h in _steps(unit, max(unit, TALLEST)) if h <= tall]
        widths = [wide] if self.options.full_width else _widths(unit, wide)
        rows, columns = np.meshgrid(heights, widths, indexing="ij")
        return self._tiles.setdefault(shape.depth, (rows.ravel(), columns.ravel()))

    def columns(self, depth: int, level: int, width: int, span: plan.Span) -> Array:
        """Columns that all bands together make of a map at a level, per tile."""
        key = depth, level, width, span
        if key not in self._columns:
            widths = self._tiles[depth][1]
            grid = self.graph.grid
            bands = -(-(-(-self.options.frame[1] // grid) * grid) // widths)
            self._columns[key] = _covered(0, bands, widths >> level, span, width)
        return self._columns[key]

    def group(self, start: int, end: int) -> Found | None:
        """The cheapest way to run layers [start, end) together, or None when none fits."""
        drafts = self.drafts(start, end)
        if any(
            draft.layer is not None
            and draft.layer.name in self.again
            and not _is_read(draft, drafts[index + 1 :])
            for index, draft in enumerate(drafts)
        ):
            return None  # another group makes it, where it is read
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
        rows, columns = self.tiles(shape)
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
            memory.Request(view.channels << 2 * (shift - self.levels[view.buffer]), first, last)
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


@dataclass(frozen=True)
class Extent:
    """Offsets of what a window holds, and the items between which it is live."""

    view: View
    top: int
    bottom: int
    left: int
    right: int
    first: int
    last: int


class Shape:
    """A group with its modes: everything that does not depend on the tile."""

    def __init__(self, search: Search, drafts: tuple[Draft, ...], keep: frozenset[str]) -> None:
        self.search, self.drafts, self.keep = search, drafts, keep
        levels = search.levels
        touched = [view for draft in drafts for view in _touched(draft)]
        self.depth = max([levels[view.buffer] for view in touched])
        # Layers that nothing reads, ever, still run once: a trace shows them.
        self.idle = {
            index
            for index, draft in enumerate(drafts)
            if draft.view is not None and not _is_read(draft, drafts[index + 1 :])
        }
        self.spans = self._spans()
        self.extents = self._extents()
        block = search.chip.capability.channel_block
        self.weights = [
            0 if d.layer is None else blobs.stream_bytes(d.layer.weight.shape, block)
            for d in drafts
        ]

    def level(self, draft: Draft) -> int:
        return 0 if draft.view is None else self.search.levels[draft.view.buffer]

    def _spans(self) -> list[tuple[plan.Span, plan.Span]]:
        """(top, bottom), (left, right) of each item: the halo of its readers, from the last up."""
        spans: list[tuple[plan.Span, plan.Span]] = [((0, 0), (0, 0))] * len(self.drafts)
        for index in range(len(self.drafts) - 1, -1, -1):
            draft = self.drafts[index]
            rows: list[plan.Span] = []
            columns: list[plan.Span] = []
            if draft.stores or draft.view is None or index in self.idle:
                rows, columns = [(0, 0)], [(0, 0)]
            for reader in range(index + 1, len(self.drafts)):
                for view, op in self.drafts[reader].reads:
                    if draft.view is not None and overlap(draft.view, view):
                        rows.append(plan.input_span(op, spans[reader][0]))
                        columns.append(plan.input_span(op, spans[reader][1]))
            top, bottom = min(r[0] for r in rows), max(r[1] for r in rows)
            left, right = min(c[0] for c in columns), max(c[1] for c in columns)
            # Made a quad of pixels at a time.
            even = 2 if draft.layer is not None and draft.layer.op is Op.UP else 1
            top, left = top // even * even, left // even * even
            bottom, right = -(-bottom // even) * even, -(-right // even) * even
            if draft.view is not None and draft.view.buffer in self.keep:
                top = bottom
            spans[index] = (min(top, bottom), bottom), (left, right)
        return spans

    def _extents(self) -> dict[str, Extent]:
        """What each buffer's window must hold, its readers' rows included."""
        found: dict[str, Extent] = {}
        for index, (draft, spans) in enumerate(zip(self.drafts, self.spans, strict=True)):
            places = [(view, *(plan.input_span(op, s) for s in spans)) for view, op in draft.reads]
            if draft.view is not None:
                places.append((draft.view, *spans))
            for view, rows, columns in places:
                old = found.get(view.buffer)
                here = Extent(view, *rows, *columns, index, index)
                found[view.buffer] = here if old is None else _union(old, here)
        last = len(self.drafts) - 1
        return {
            name: dataclasses.replace(extent, first=0, last=last) if name in self.keep else extent
            for name, extent in found.items()
        }

    def window_size(self, extent: Extent, height: Any, width: Any) -> tuple[Any, Any]:
        """(rows, columns) of a window for tiles of these sizes, numbers or arrays."""
        level = self.search.levels[extent.view.buffer]
        rows = (height >> level) + extent.bottom - extent.top
        return rows, (width >> level) + extent.right - extent.left

    def live(self, heights: Array, widths: Array) -> Array:
        """Bytes of the windows live at the busiest item, per tile: the least that must fit."""
        alignment = self.search.chip.capability.alignment
        peak = np.zeros((len(self.drafts), len(heights)), np.int64)
        for extent in self.extents.values():
            rows, columns = self.window_size(extent, heights, widths)
            size = memory.align(rows * columns * extent.view.channels, alignment)
            peak[extent.first : extent.last + 1] += size
        return np.asarray(peak.max(axis=0))

    def prologue(self, heights: Any) -> Any:
        """Steps before the first output row: until every item begins at or above row 0."""
        ahead = max(s[0][1] << self.level(d) for d, s in zip(self.drafts, self.spans, strict=True))
        return -(-ahead // heights)

    def cost(self, heights: Array, widths: Array, live: Array) -> Array:
        """DRAM bytes and the price of recomputation, per tile."""
        search = self.search
        height, width = search.options.frame
        grid = search.graph.grid
        tall, wide = (-(-size // grid) * grid for size in (height, width))
        prologue = self.prologue(heights)
        steps, bands = -(-tall // heights), -(-wide // widths)
        total = np.zeros(len(heights))
        per_tile: list[tuple[int, Array]] = []
        fixed = 0
        for draft, (rows, columns), weight in zip(
            self.drafts, self.spans, self.weights, strict=True
        ):
            level = self.level(draft)
            image = draft.view is not None and draft.view.buffer == IMAGE
            end = (height, width) if image else (tall >> level, wide >> level)
            step = heights >> level
            # Line buffers make each row once.
            made = end[0] if rows[0] == rows[1] else _covered(-prologue, steps, step, rows, end[0])
            pixels = made * search.columns(self.depth, level, end[1], columns)
            if draft.layer is None:
                assert draft.view is not None
                total += pixels * draft.view.channels
                continue
            macs = int(draft.layer.weight.size) // (4 if draft.layer.op is Op.UP else 1)
            again = draft.layer.name in search.again
            needed = 0 if again else (tall >> level) * (wide >> level)
            total += (pixels - needed) * (macs * search.price)
            if draft.view is None:
                total += 2 * height * width * contract.IMAGE_CHANNELS
            elif draft.stores:
                total += end[0] * end[1] * draft.view.channels
            numbers = plan.layer_weight_bytes(draft.layer, search.chip.capability.channel_block)
            passes = _tiles(-prologue, steps, step, rows, end[0]) * bands
            per_tile.append((weight, passes * numbers - numbers))
            fixed += numbers
        return total + fixed + self._streamed(per_tile, live)

    def _streamed(self, weights: list[tuple[int, Array]], live: Array) -> Array:
        """Bytes that stream in again because weights do not stay, the largest kept first."""
        room = self.search.limit - live
        streamed = np.zeros(len(live))
        for size, extra in sorted(weights, key=lambda pair: -pair[0]):
            stays = size <= room
            room = room - np.where(stays, size + -size % 64, 0)
            streamed += np.where(stays, 0, extra)
        return streamed

    def place(self, height: int, width: int, limit: int) -> Group | None:
        """The group with addresses for one tile, or None when they do not fit."""
        alignment = self.search.chip.capability.alignment
        names = list(self.extents)
        requests = []
        for name in names:
            extent = self.extents[name]
            rows, columns = self.window_size(extent, height, width)
            size = rows * columns * extent.view.channels
            requests.append(memory.Request(size, extent.first, extent.last))
        addresses, end = memory.place(requests, alignment)
        if end > limit:
            return None
        windows = tuple(
            Window(
                name,
                extent.view.offset,
                extent.view.channels,
                name in self.keep,
                extent.left,
                *self.window_size(extent, height, width),
                address,
            )
            for (name, extent), address in zip(self.extents.items(), addresses, strict=True)
        )
        order = sorted(range(len(self.drafts)), key=lambda i: -self.weights[i])
        resident: dict[int, int] = {}
        for index in order:
            size = self.weights[index]
            if self.drafts[index].layer is not None and end + size <= limit:
                resident[index] = end
                end = memory.align(end + size, alignment)

        def window(view: View | None) -> int | None:
            return None if view is None else names.index(view.buffer)

        items = tuple(
            Item(
                None if draft.layer is None else draft.layer.name,
                draft.view,
                None if draft.layer is None else window(draft.layer.input),
                None if draft.layer is None else window(draft.layer.join),
                window(draft.view),
                None,
                *rows,
                *columns,
                resident.get(index),
            )
            for index, (draft, (rows, columns)) in enumerate(
                zip(self.drafts, self.spans, strict=True)
            )
        )
        return Group(height, width, int(self.prologue(height)), windows, items)


def _is_read(draft: Draft, later: Sequence[Draft]) -> bool:
    return draft.view is None or any(
        overlap(draft.view, view) for other in later for view, _ in other.reads
    )


def _touched(draft: Draft) -> Iterator[View]:
    if draft.view is not None:
        yield draft.view
    for view, _ in draft.reads:
        yield view


def _union(one: Extent, other: Extent) -> Extent:
    start = min(one.view.offset, other.view.offset)
    end = max(one.view.end, other.view.end)
    return Extent(
        View(one.view.buffer, start, end - start),
        min(one.top, other.top),
        max(one.bottom, other.bottom),
        min(one.left, other.left),
        max(one.right, other.right),
        min(one.first, other.first),
        max(one.last, other.last),
    )


def _steps(unit: int, largest: int) -> list[int]:
    """Multiples of the unit by 1, 2, 3, 4, 6, 8, 12 ... up to `largest`."""
    sizes = {unit * factor << power for power in range(12) for factor in (1, 3)}
    return sorted(size for size in sizes if size <= largest)


def _widths(unit: int, wide: int) -> list[int]:
    """Band widths: the frame in 1, 2, 3 ... equal bands, rounded up to the unit."""
    counts: Iterable[int] = range(1, -(-wide // unit) + 1)
    return sorted({-(-wide // (count * unit)) * unit for count in counts})


def _clamped_sum(first: Array, last: Array, step: Array, offset: int, size: int) -> Array:
    """Sum over n in [first, last) of min(max(n * step + offset, 0), size)."""
    low = np.clip(-(offset // step), first, last)
    high = np.clip(-((offset - size) // step), low, last)
    ramp = step * (low + high - 1) * (high - low) // 2 + offset * (high - low)
    return np.asarray(ramp + size * (last - high))


def _covered(first: Any, last: Any, step: Array, span: plan.Span, size: int) -> Array:
    """Rows (or columns) made in all steps [first, last) together."""
    first, last = np.broadcast_to(first, step.shape), np.broadcast_to(last, step.shape)
    return _clamped_sum(first + 1, last + 1, step, span[1], size) - _clamped_sum(
        first, last, step, span[0], size
    )


def _tiles(first: Any, last: Any, step: Array, span: plan.Span, size: int) -> Array:
    """Steps in [first, last) that make at least one row."""
    low = np.maximum(first, -(-(1 - span[1]) // step) - 1)  # (n + 1) * step + bottom >= 1
    high = np.minimum(last, -(-(size - span[0]) // step))  # n * step + top < size
    return np.asarray(np.maximum(high - low, 0))


def mode_counts(plan_: StripePlan) -> Mapping[str, int]:
    """How many edges have each mode."""
    counts = {mode.value: 0 for mode in plan.Mode}
    for _, _, mode in plan_.modes():
        counts[mode.value] += 1
    return counts
