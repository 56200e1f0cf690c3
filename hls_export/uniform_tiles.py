"""The schedule of uniform tiles: what cutting a frame into equal rectangles costs.

Consecutive layers form a phase and run tile by tile, with everything between them in SRAM; what
another phase reads goes through DRAM, a packed map per layer. Each tile computes its halo anew.
Phases are cut and tiles are sized for the shortest frame. No addresses are placed and no lines kept
from tile to tile.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hls_export.cycles import (
    FrameCost,
    Occupancy,
    Phase,
    Step,
    Traffic,
    Work,
    burst_bytes,
    compute_work,
    dma_cycles,
    macs_per_cycle,
    phase_cost,
    value_bytes,
    weight_dram,
    weight_transfer,
)
from hls_export.memory import check_size, level_size
from hls_export.npu import Chip
from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, IntArray, IntegerGraph, View

Interval = tuple[int, int]
PICTURE = -1  # in the place of a layer: the image, read; the tail writes the output
# Widths that are compared for a phase, and layers that it may have.
OPTIONS, LAYERS_MAX = 5, 16


@dataclass(frozen=True)
class Span:
    """One axis of a tile: what each layer of a phase computes, loads and stores, end exclusive.

    computed: layer -> positions of its convolution. made: layer -> what it writes in SRAM.
    loaded: layer of another phase or PICTURE -> what is read of it. stored: layer -> its own part.
    """

    computed: Mapping[int, Interval]
    made: Mapping[int, Interval]
    loaded: Mapping[int, Interval]
    stored: Mapping[int, Interval]


class Flow:
    """Who reads what of a graph."""

    def __init__(self, graph: IntegerGraph) -> None:
        self.graph = graph
        self.layers = graph.layers
        self.inputs = [self._writers(layer.input) for layer in graph.layers]
        self.joins = [
            (PICTURE,) if layer.output is None else self._writers(layer.join)
            for layer in graph.layers
        ]
        self.readers: dict[int, list[int]] = {}
        for index in range(len(graph.layers)):
            for writer in {*self.inputs[index], *self.joins[index]}:
                self.readers.setdefault(writer, []).append(index)

    def _writers(self, view: View | None) -> tuple[int, ...]:
        if view is None:
            return ()
        if view.buffer == IMAGE:
            return (PICTURE,)
        return tuple(
            index
            for index, layer in enumerate(self.layers)
            if layer.output is not None
            and layer.output.buffer == view.buffer
            and layer.output.offset < view.end
            and view.offset < layer.output.end
        )

    def level(self, layer: int) -> int:
        """Of what a layer writes; the image and the tail's output lie at 0."""
        output = None if layer == PICTURE else self.layers[layer].output
        return 0 if output is None else self.graph.buffer(output.buffer).level

    def pixel_bytes(self, layer: int) -> int:
        """Bytes of a pixel of what a layer writes."""
        output = None if layer == PICTURE else self.layers[layer].output
        if output is None:
            return contract.IMAGE_CHANNELS
        return output.channels * self.graph.value_bytes(output)

    def leaves(self, layer: int, phase: range) -> bool:
        """Whether something outside its phase reads what a layer writes."""
        return self.layers[layer].output is None or any(
            reader not in phase for reader in self.readers.get(layer, ())
        )

    def coarsest(self, phase: range) -> int:
        """The deepest level that a phase reads or writes; tiles are multiples of its pixels."""
        touched = {*phase, *(writer for index in phase for writer in self.read(index))}
        return max(self.level(layer) for layer in touched)

    def read(self, layer: int) -> tuple[int, ...]:
        """What a layer reads: layers, or PICTURE."""
        return (*self.inputs[layer], *self.joins[layer])

    def span(self, phase: range, start: int, end: int, size: int | None) -> Span:
        """One axis of the tile [start, end), in pixels of the coarsest level of a phase.

        size: of the padded image at level 0; None for an endless one. The halo grows from what is
        stored backwards: a 3x3 asks for a pixel more on both sides, a stride of 2 doubles, the
        pixel shuffle halves, and neighbours are computed in pairs.
        """
        coarsest = self.coarsest(phase)
        wanted: dict[int, Interval] = {}
        computed, made, stored = {}, {}, {}

        def want(writers: Iterable[int], low: int, high: int) -> None:
            for writer in writers:
                if size is not None:
                    low, high = max(low, 0), min(high, size >> self.level(writer))
                before = wanted.get(writer, (low, high))
                wanted[writer] = min(low, before[0]), max(high, before[1])

        for index in reversed(phase):
            layer = self.layers[index]
            if self.leaves(index, phase):
                scale = coarsest - self.level(index)
                want((index,), start << scale, end << scale)
                low, high = start << scale, end << scale
                limit = high if size is None else min(high, size >> self.level(index))
                stored[index] = low, limit
            low, high = wanted.pop(index)
            if layer.op is Op.UP:
                low, high = low >> 1, (high + 1) >> 1
            computed[index] = low, high
            made[index] = (2 * low, 2 * high) if layer.op is Op.UP else (low, high)
            want(self.joins[index], *made[index])
            border = layer.op.kernel // 2
            if layer.op.stride == 2:
                low, high = 2 * low, 2 * high - 1
            want(self.inputs[index], low - border, high + border)
        return Span(computed, made, wanted, stored)


@dataclass(frozen=True)
class Cut:
    """Layers of a phase and the size of its tiles, in pixels of the coarsest level."""

    layers: range
    rows: int
    columns: int


def uniform_tiles(graph: IntegerGraph, chip: Chip, height: int, width: int) -> FrameCost:
    """The cost of a frame cut into uniform tiles.

    Raises ValueError when a size is not positive, or naming a layer of which not even the smallest
    tile fits the chip's SRAM.
    """
    flow = Flow(graph)
    performance = chip.performance
    phases = tuple(
        tile_phase(flow, chip, cut, height, width) for cut in plan_cuts(flow, chip, height, width)
    )
    return FrameCost(
        height,
        width,
        performance.clock_hz,
        macs_per_cycle(performance),
        phases,
        max(held.total for phase in phases for held in phase.sram),
    )


def plan_cuts(flow: Flow, chip: Chip, height: int, width: int) -> list[Cut]:
    """Where to cut and how large to tile, for the fewest cycles: every cut against every other."""
    check_size("tiles", height, width)
    best: list[tuple[float, list[Cut]]] = [(0.0, [])]
    for end in range(1, len(flow.layers) + 1):
        options = []
        for start in range(max(0, end - LAYERS_MAX), end):
            found = best_tile(flow, chip, range(start, end), height, width)
            if found is not None:
                cycles, cut = found
                options.append((best[start][0] + cycles, [*best[start][1], cut]))
        if not options:
            alone = range(end - 1, end)
            pixel = flow.span(alone, 0, 1, None)
            needed = _live(flow, alone, pixel, pixel, 1)[0]
            raise ValueError(
                f"chip {chip.name}, layer {flow.layers[end - 1].name}: SRAM of its smallest tile "
                f"must be at most {chip.performance.sram_bytes} bytes, got {needed}"
            )
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def best_tile(
    flow: Flow, chip: Chip, phase: range, height: int, width: int
) -> tuple[float, Cut] | None:
    """Cycles and tile of a phase: the frame halved across until a tile fits, and a little further.

    Tiles are as tall as SRAM allows. None when not one pixel of the coarsest level fits.
    """
    rows, columns = level_size(flow.graph.levels, height, width, flow.coarsest(phase))
    down = flow.span(phase, 0, 1, None)
    found: list[tuple[float, Cut]] = []
    across = columns
    while len(found) < OPTIONS:
        live = _live(flow, phase, down, flow.span(phase, 0, across, None), rows)
        fits = np.flatnonzero(live <= chip.performance.sram_bytes)
        if fits.size:
            cut = Cut(phase, int(fits[-1]) + 1, across)
            found.append((_estimate(flow, chip, cut, rows, columns), cut))
        if across == 1:
            break
        across = -(-across // 2)
    return min(found, key=lambda option: option[0]) if found else None


def _occupancy(flow: Flow, phase: range, down: Span, across: Span, rows: int) -> IntArray:
    """Bytes in SRAM for tiles of 1..rows rows, int64 [layers, 3, rows], in an endless frame.

    down, across: the spans of one row and of the tile's columns. While each layer runs: what DRAM
    fills, what it empties, both twice over, and the rest, from where it is made to where it is
    last read.
    """
    counts = np.arange(rows, dtype=np.int64)
    coarsest = flow.coarsest(phase)

    def area(layer: int, kind: str) -> IntArray:
        (top, bottom), (left, right) = (getattr(span, kind)[layer] for span in (down, across))
        heights = bottom - top + (counts << (coarsest - flow.level(layer)))
        return flow.pixel_bytes(layer) * (right - left) * heights

    held = np.zeros((len(phase), 3, rows), dtype=np.int64)
    for layer in down.loaded:
        held[:, 0] += 2 * area(layer, "loaded")
    for layer in phase:
        size = area(layer, "made")
        if layer in down.stored:
            held[:, 1] += 2 * size
        else:
            last = max(flow.readers[layer])
            held[layer - phase.start : last - phase.start + 1, 2] += size
    return held


def _live(flow: Flow, phase: range, down: Span, across: Span, rows: int) -> IntArray:
    """Most bytes in SRAM for tiles of 1..rows rows, int64 [rows]."""
    return _occupancy(flow, phase, down, across, rows).sum(axis=1).max(axis=0)


def _estimate(flow: Flow, chip: Chip, cut: Cut, rows: int, columns: int) -> float:
    """Cycles of a phase as if no tile met the border, whichever of array and DMA takes longer."""
    tiles = math.ceil(rows / cut.rows) * math.ceil(columns / cut.columns)
    spans = [flow.span(cut.layers, 0, size, None) for size in (cut.rows, cut.columns)]
    work = _tile_work(flow, chip, cut, spans[0], spans[1], None)
    compute = sum(part.compute_cycles for part in work)
    moved = sum(part.traffic.dram for part in work) * tiles
    moved += sum(weight_dram(chip, flow.layers[index]) for index in cut.layers) * (
        1 if _stay(flow, chip, cut) else tiles
    )
    return max(compute * tiles, dma_cycles(moved, chip.performance))


def _stay(flow: Flow, chip: Chip, cut: Cut) -> bool:
    """Whether the weights of a phase fit their buffer together and so are loaded once."""
    weights = (weight_transfer(chip, flow.layers[index]) for index in cut.layers)
    return sum(weights) <= chip.performance.weight_buffer_bytes


def tile_phase(flow: Flow, chip: Chip, cut: Cut, height: int, width: int) -> Phase:
    """The exact cost of a phase: every tile of the frame, row by row."""
    padded = level_size(flow.graph.levels, height, width, 0)
    coarsest = flow.coarsest(cut.layers)
    down, across = (
        [
            flow.span(cut.layers, start, start + size, side)
            for start in range(0, side >> coarsest, size)
        ]
        for size, side in zip((cut.rows, cut.columns), padded, strict=True)
    )
    tiles = [
        _tile_work(flow, chip, cut, rows, columns, (height, width))
        for rows in down
        for columns in across
    ]
    stay = _stay(flow, chip, cut)
    loads = [
        Work(
            0,
            0,
            Traffic(dram_read=weight_dram(chip, layer), weight_write=weight_transfer(chip, layer)),
        )
        for layer in (flow.layers[index] for index in cut.layers)
    ]
    with_weights = [
        tuple(map(Work.__add__, work, loads)) if not (index and stay) else work
        for index, work in enumerate(tiles)
    ]
    steps = [Step(len(list(run)), work) for work, run in itertools.groupby(with_weights)]
    names = [flow.layers[index].name for index in cut.layers]
    one, tile = (flow.span(cut.layers, 0, size, None) for size in (1, cut.columns))
    held = _occupancy(flow, cut.layers, one, tile, cut.rows)[:, :, -1]
    cost = phase_cost(names, steps, chip.performance)
    return replace(cost, sram=tuple(Occupancy(*map(int, layer)) for layer in held))


def _tile_work(
    flow: Flow,
    chip: Chip,
    cut: Cut,
    rows: Span,
    columns: Span,
    frame: tuple[int, int] | None,
) -> tuple[Work, ...]:
    """Each layer of a tile: compute, what it first asks DRAM for, what it stores; no weights.

    frame: height, width of the image and the output, which have no padding; None: endless.
    """
    burst = chip.performance.dram_burst_bytes

    def moved(layer: int, kind: str) -> int:
        (top, bottom), (left, right) = (getattr(span, kind)[layer] for span in (rows, columns))
        picture = layer == PICTURE or flow.layers[layer].output is None
        if picture and frame is not None:  # beyond the last pixel it is repeated, never stored
            reach = 1 if layer == PICTURE else 0
            bottom, right = min(bottom, frame[0]), min(right, frame[1])
            top, left = min(top, bottom - reach), min(left, right - reach)
        line = burst_bytes(max(0, right - left) * flow.pixel_bytes(layer), burst)
        return max(0, bottom - top) * line

    asked: set[int] = set()
    found = []
    for index in cut.layers:
        sides = (span.computed[index] for span in (rows, columns))
        height, width = (high - low for low, high in sides)
        layer = flow.layers[index]
        sizes = value_bytes(flow.graph, layer)
        work = compute_work(layer, height, width, chip.performance, sizes)
        new = [writer for writer in flow.read(index) if writer in rows.loaded]
        new = [writer for writer in dict.fromkeys(new) if writer not in asked]
        asked.update(new)
        read = sum(moved(writer, "loaded") for writer in new)
        written = moved(index, "stored") if index in rows.stored else 0
        traffic = Traffic(dram_read=read, dram_write=written, sram_write=read, sram_read=written)
        found.append(Work(work.macs, work.compute_cycles, work.traffic + traffic))
    return tuple(found)
