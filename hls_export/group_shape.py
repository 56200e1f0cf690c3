"""Groups of layers before tiles are chosen: halo, windows, cost, for all tile sizes at once."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hls_export import blobs, memory, plan
from hls_export.npu import Chip
from hls_export.plan import Group, Item, Window
from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View

Array = npt.NDArray[Any]
FRAME = (1080, 1920)  # what plans are tuned for: height, width
TALLEST = 256  # tile rows that are tried


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

    def within(self, chip: Chip) -> "Options":
        """The same for a frame that the chip takes."""
        height, width = self.frame
        largest = chip.capability.max_height, chip.capability.max_width
        return dataclasses.replace(self, frame=(min(height, largest[0]), min(width, largest[1])))


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


def ways_to_remake(graph: IntegerGraph, options: Options) -> list[frozenset[str]]:
    """The sets of layers that a plan may make again: none, or all that read the image alone."""
    heads = frozenset(
        layer.name
        for layer in graph.layers
        if layer.input.buffer == IMAGE and layer.join is None and layer.output is not None
    )
    return [frozenset()] + ([heads] if options.rematerialise and heads else [])


def overlap(one: View, other: View) -> bool:
    """Whether two views share channels."""
    return one.buffer == other.buffer and one.offset < other.end and other.offset < one.end


class Problem:
    """A graph on a chip, and the layers that are made again wherever they are read."""

    def __init__(
        self,
        graph: IntegerGraph,
        chip: Chip,
        options: Options,
        again: frozenset[str],
    ) -> None:
        self.graph, self.chip, self.options, self.again = graph, chip, options, again
        self.levels = {buffer.name: buffer.level for buffer in graph.buffers}
        self._tiles: dict[int, tuple[Array, Array]] = {}
        self._columns: dict[tuple[int, int, int, plan.Span], Array] = {}
        alignment = chip.capability.alignment
        self.limit = chip.performance.sram_bytes // alignment * alignment
        performance = chip.performance
        rate = performance.input_lanes * performance.output_lanes * performance.pixel_lanes
        # Bytes that DRAM moves while the array makes one multiply-accumulate.
        self.price = performance.dram_bytes_per_second / performance.clock_hz / rate

    def pixel_bytes(self, view: View) -> int:
        """Bytes of a pixel of a view."""
        return view.channels * self.graph.value_bytes(view)

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

    def tiles(self, depth: int) -> tuple[Array, Array]:
        """Tile heights and widths that are tried: multiples of the group's unit."""
        if depth in self._tiles:
            return self._tiles[depth]
        unit = 1 << depth
        tall, wide = self.padded
        heights = [h for h in _steps(unit, max(unit, TALLEST)) if h <= tall]
        widths = [wide] if self.options.full_width else _widths(unit, wide)
        rows, columns = np.meshgrid(heights, widths, indexing="ij")
        return self._tiles.setdefault(depth, (rows.ravel(), columns.ravel()))

    @functools.cached_property
    def padded(self) -> tuple[int, int]:
        """Height, width of the padded frame."""
        grid, (height, width) = self.graph.grid, self.options.frame
        return -(-height // grid) * grid, -(-width // grid) * grid

    def weight_bytes(self, layer: Layer) -> int:
        """Bytes of a layer's weights and channel numbers in DRAM."""
        block, decoder = self.chip.capability.channel_block, self.chip.performance.weight_decoder
        return plan.layer_weight_bytes(layer, block, decoder)

    def least(self, drafts: Sequence[Draft]) -> int:
        """Bytes that a group moves whatever its tiles: tensors, images and weights once."""
        height, width = self.options.frame
        pixels = math.prod(self.padded)
        total = 0
        for draft in drafts:
            if draft.layer is not None:
                total += self.weight_bytes(draft.layer)
            if draft.view is None:
                total += 2 * height * width * contract.IMAGE_CHANNELS
            elif draft.view.buffer == IMAGE:
                total += height * width * contract.IMAGE_CHANNELS
            elif draft.layer is None or draft.stores:
                total += (pixels >> 2 * self.levels[draft.view.buffer]) * self.pixel_bytes(
                    draft.view
                )
        return total

    def columns(self, depth: int, level: int, width: int, span: plan.Span) -> Array:
        """Columns that all bands together make of a map at a level, per tile."""
        key = depth, level, width, span
        if key not in self._columns:
            widths = self._tiles[depth][1]
            bands = -(-self.padded[1] // widths)
            self._columns[key] = covered(0, bands, widths >> level, span, width)
        return self._columns[key]

    def made_elsewhere(self, drafts: tuple[Draft, ...]) -> bool:
        """Whether a layer that other groups make again is read by no item here."""
        return any(
            draft.layer is not None
            and draft.layer.name in self.again
            and not is_read(draft, drafts[index + 1 :])
            for index, draft in enumerate(drafts)
        )


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

    def __init__(self, problem: Problem, drafts: tuple[Draft, ...], keep: frozenset[str]) -> None:
        self.problem, self.drafts, self.keep = problem, drafts, keep
        levels = problem.levels
        touched = [view for draft in drafts for view in _touched(draft)]
        self.depth = max([levels[view.buffer] for view in touched])
        # Layers that nothing reads, ever, still run once: a trace shows them.
        self.idle = {
            index
            for index, draft in enumerate(drafts)
            if draft.view is not None and not is_read(draft, drafts[index + 1 :])
        }
        self.spans = self._spans()
        self.needs = self._needs()
        last = len(drafts) - 1
        self.extents = {
            name: dataclasses.replace(extent, first=0, last=last) if name in keep else extent
            for name, extent in self.needs.items()
        }
        block = problem.chip.capability.channel_block
        self.weights = [
            0 if d.layer is None else blobs.stream_bytes(d.layer.weight.shape, block)
            for d in drafts
        ]

    def level(self, draft: Draft) -> int:
        return 0 if draft.view is None else self.problem.levels[draft.view.buffer]

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

    def _needs(self) -> dict[str, Extent]:
        """What each buffer's window must hold, its readers' rows included, while it is touched."""
        found: dict[str, Extent] = {}
        for index, (draft, spans) in enumerate(zip(self.drafts, self.spans, strict=True)):
            across, down = spans
            places = [
                (view, plan.input_span(op, across), plan.input_span(op, down))
                for view, op in draft.reads
            ]
            if draft.view is not None:
                places.append((draft.view, across, down))
            for view, rows, columns in places:
                old = found.get(view.buffer)
                here = Extent(view, *rows, *columns, index, index)
                found[view.buffer] = here if old is None else _union(old, here)
        return found

    def window_size(self, extent: Extent, height: Any, width: Any) -> tuple[Any, Any]:
        """(rows, columns) of a window for tiles of these sizes, numbers or arrays."""
        level = self.problem.levels[extent.view.buffer]
        rows = (height >> level) + extent.bottom - extent.top
        return rows, (width >> level) + extent.right - extent.left

    def live(self, heights: Array, widths: Array) -> Array:
        """Bytes of the windows live at the busiest item, per tile: the least that must fit."""
        return self.peak(self.extents.values(), heights, widths)

    def peak(self, extents: Iterable[Extent], heights: Array, widths: Array) -> Array:
        """Bytes of these windows at the busiest item, per tile."""
        alignment = self.problem.chip.capability.alignment
        peak = np.zeros((len(self.drafts), len(heights)), np.int64)
        for extent in extents:
            rows, columns = self.window_size(extent, heights, widths)
            size = memory.align(rows * columns * self.problem.pixel_bytes(extent.view), alignment)
            peak[extent.first : extent.last + 1] += size
        return np.asarray(peak.max(axis=0))

    def prologue(self, heights: Any) -> Any:
        """Steps before the first output row: until every item begins at or above row 0."""
        ahead = max(s[0][1] << self.level(d) for d, s in zip(self.drafts, self.spans, strict=True))
        return -(-ahead // heights)

    def cost(self, heights: Array, widths: Array, live: Array) -> Array:
        """DRAM bytes and the price of recomputation, per tile."""
        problem = self.problem
        height, width = problem.options.frame
        tall, wide = problem.padded
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
            made = end[0] if rows[0] == rows[1] else covered(-prologue, steps, step, rows, end[0])
            pixels = made * problem.columns(self.depth, level, end[1], columns)
            if draft.layer is None:
                assert draft.view is not None
                total += pixels * problem.pixel_bytes(draft.view)
                continue
            macs = int(draft.layer.weight.size) // (4 if draft.layer.op is Op.UP else 1)
            again = draft.layer.name in problem.again
            needed = 0 if again else (tall >> level) * (wide >> level)
            total += (pixels - needed) * (macs * problem.price)
            if draft.view is None:
                total += 2 * height * width * contract.IMAGE_CHANNELS
            elif draft.stores:
                total += end[0] * end[1] * problem.pixel_bytes(draft.view)
            numbers = problem.weight_bytes(draft.layer)
            passes = _tiles(-prologue, steps, step, rows, end[0]) * bands
            per_tile.append((weight, passes * numbers - numbers))
            fixed += numbers
        return total + fixed + self._streamed(per_tile, live)

    def _streamed(self, weights: list[tuple[int, Array]], live: Array) -> Array:
        """Bytes that stream in again because weights do not stay, the largest kept first."""
        room = self.problem.limit - live
        streamed = np.zeros(len(live))
        for size, extra in sorted(weights, key=lambda pair: -pair[0]):
            stays = size <= room
            room = room - np.where(stays, size + -size % 64, 0)
            streamed += np.where(stays, 0, extra)
        return streamed

    def place(self, height: int, width: int, limit: int) -> Group | None:
        """The group with addresses for one tile, or None when they do not fit."""
        alignment = self.problem.chip.capability.alignment
        names = list(self.extents)
        requests = []
        for name in names:
            extent = self.extents[name]
            rows, columns = self.window_size(extent, height, width)
            size = rows * columns * self.problem.pixel_bytes(extent.view)
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
                self.problem.graph.value_bytes(extent.view),
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


def is_read(draft: Draft, later: Sequence[Draft]) -> bool:
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


def _clamped_sum(first: Array, last: Array, step: Array, offset: int, size: int) -> Array:
    """Sum over n in [first, last) of min(max(n * step + offset, 0), size)."""
    low = np.clip(-(offset // step), first, last)
    high = np.clip(-((offset - size) // step), low, last)
    ramp = step * (low + high - 1) * (high - low) // 2 + offset * (high - low)
    return np.asarray(ramp + size * (last - high))


def covered(first: Any, last: Any, step: Array, span: plan.Span, size: int) -> Array:
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


def _steps(unit: int, largest: int) -> list[int]:
    """Multiples of the unit by 1, 2, 3, 4, 6, 8, 12 ... up to `largest`."""
    sizes = {unit * factor << power for power in range(12) for factor in (1, 3)}
    return sorted(size for size in sizes if size <= largest)


def _widths(unit: int, wide: int) -> list[int]:
    """Band widths: the frame in 1, 2, 3 ... equal bands, rounded up to the unit."""
    counts: Iterable[int] = range(1, -(-wide // unit) + 1)
    return sorted({-(-wide // (count * unit)) * unit for count in counts})
