"""The stripe plan: how a chip runs a graph through its SRAM, group after group, tile after tile.

The layers are cut into *groups*. A group runs on the whole frame, tile by tile, before the next one
starts: the frame is cut into bands of `tile_width` columns, left to right; each band is walked down
in steps of `tile_height` rows. In every step the group's items run in their order:

- a *load* (`layer` is None) brings a tensor, or the image as pixel - 128, from DRAM into a window;
- a *layer* reads windows and writes one; the tail writes pixels of the output instead.

What an item makes in step s of band b, at the level l of what it writes (H, W: the padded frame's
size at that level), is

    rows    [ s      * (tile_height >> l) + top,  (s + 1) * (tile_height >> l) + bottom )
    columns [ b      * (tile_width  >> l) + left, (b + 1) * (tile_width  >> l) + right )

each end clamped to 0..H or 0..W: so one rule holds in every tile, at every border and for every
size of image. Steps run from -prologue to ceil(Hp / tile_height) - 1, so that rows which a deep
pipeline needs ahead are made before the first output. The *new* rows of a step run from s * (...) +
bottom; new rows and the band's own columns (left = right = 0) of all tiles cover the frame once.
They are what an item with a `spill` stores in DRAM behind its window.

A *window* is the SRAM of a buffer's channels [offset, offset + channels) in one group: a ring of
rows. Channel offset + c of pixel (y, x) lies at

    address + (((y % rows) * columns + (x - x0)) * channels + c) * value_bytes

where x0 is the leftmost column of the band's window, max(0, b * (tile_width >> l) + left) with the
window's own `left`. Per edge, the tensor between a writer and its readers, one of three modes:

- LINE_BUFFER, `keep`: rows stay from step to step, an item makes new rows alone (top = bottom);
- RECOMPUTE: nothing survives a step, all rows that readers need are made (or loaded) again;
- DRAM: the writer spills, and a load in a later group, or in several, brings it back.

Columns beyond the band are always made again. A layer may stand in several groups: what reads the
image alone can be cheaper to compute again than to store (`rematerialised`). Weights are resident
in SRAM for a whole group (`weight_address`), or stream in once per tile.

This module knows neither how plans are found (planner.py) nor how they are proven (plan_check.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from hls_export import blobs, rice
from hls_export.tables import channel_bytes
from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View

Span = tuple[int, int]  # offsets of both ends of a region: (top, bottom) or (left, right)


class Mode(Enum):
    """What becomes of a tensor between its writer and its readers."""

    RECOMPUTE = "recompute"
    LINE_BUFFER = "line buffer"
    DRAM = "dram"


@dataclass(frozen=True)
class Window:
    """SRAM of channels [offset, offset + channels) of a buffer in one group: a ring of rows."""

    buffer: str
    offset: int
    channels: int
    keep: bool
    left: int
    rows: int
    columns: int
    address: int
    value_bytes: int = 1

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.columns * self.channels * self.value_bytes

    @property
    def end(self) -> int:
        return self.address + self.size


@dataclass(frozen=True)
class Item:
    """A layer, or a load when `layer` is None; windows and the spill by index.

    view: what it writes, channels of a buffer; None for the tail.
    spill: of a load, where it reads (None: the image); of a layer, where it also stores.
    weight_address: place in SRAM of a layer's weights; None when they stream in per tile.
    """

    layer: str | None
    view: View | None
    input: int | None
    join: int | None
    output: int | None
    spill: int | None
    top: int
    bottom: int
    left: int
    right: int
    weight_address: int | None = None


@dataclass(frozen=True)
class Group:
    """Layers that run tile by tile; tiles in pixels of level 0, multiples of 2^(deepest level)."""

    tile_height: int
    tile_width: int
    prologue: int
    windows: tuple[Window, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Spill:
    """A tensor in DRAM, whole frame, packed [h][w][channels]; address in bytes per cell.

    first, last: the group that stores it, the last group that loads it.
    """

    view: View
    address: int
    first: int
    last: int


@dataclass(frozen=True)
class StripePlan:
    """Groups in order. sram: bytes used; dram: bytes per cell of all spills; alignment of both."""

    alignment: int
    sram: int
    dram: int
    groups: tuple[Group, ...]
    spills: tuple[Spill, ...]

    @cached_property
    def rematerialised(self) -> tuple[str, ...]:
        """Layers that stand in more than one group."""
        names = [item.layer for group in self.groups for item in group.items if item.layer]
        return tuple(dict.fromkeys(name for name in names if names.count(name) > 1))

    def modes(self) -> Iterator[tuple[int, View, Mode]]:
        """(group, tensor, mode) of every edge: each view written, by what becomes of it."""
        for index, group in enumerate(self.groups):
            for item in group.items:
                if item.view is None:
                    continue
                assert item.output is not None
                if item.layer is not None and item.spill is not None:
                    yield index, item.view, Mode.DRAM
                keep = group.windows[item.output].keep
                yield index, item.view, Mode.LINE_BUFFER if keep else Mode.RECOMPUTE


def clamped(start: int, end: int, size: int) -> range:
    """[start, end) within 0..size."""
    return range(min(max(start, 0), size), min(max(end, 0), size))


def rows_of(group: Group, item: Item, level: int, step: int, height: int) -> range:
    """Rows that an item makes in a step; height: the map's, padded."""
    tall = group.tile_height >> level
    return clamped(step * tall + item.top, (step + 1) * tall + item.bottom, height)


def new_rows_of(group: Group, item: Item, level: int, step: int, height: int) -> range:
    """Those of them that no earlier step has made."""
    tall = group.tile_height >> level
    return clamped(step * tall + item.bottom, (step + 1) * tall + item.bottom, height)


def columns_of(group: Group, item: Item, level: int, band: int, width: int) -> range:
    """Columns that an item makes in a band; width: the map's, padded."""
    wide = group.tile_width >> level
    return clamped(band * wide + item.left, (band + 1) * wide + item.right, width)


def input_span(op: Op, span: Span) -> Span:
    """Offsets of the input that an operation needs for offsets of what it writes.

    Along rows and columns alike: 3x3 reaches one further; with stride 2, output i is centred on
    input 2i and reads 2i - 1 .. 2i + 1; UP reads half the index.
    """
    first, last = span
    if op is Op.CONV3X3_STRIDE2:
        return 2 * first - 1, 2 * last
    if op is Op.UP:
        return first // 2, -(-last // 2)
    reach = op.kernel // 2
    return first - reach, last + reach


def level_of(graph: IntegerGraph, item: Item) -> int:
    """Level of what an item writes."""
    return 0 if item.view is None else graph.buffer(item.view.buffer).level


@dataclass(frozen=True)
class Traffic:
    """DRAM bytes of a plan on one frame, by kind, and its multiply-accumulates.

    image: loads of the image and the tail's subtraction; output: the result; load, store: spills;
    weights: with the rows of CHAN; least_macs: each layer once.
    """

    image: int
    output: int
    load: int
    store: int
    weights: int
    macs: int
    least_macs: int

    @property
    def total(self) -> int:
        return self.image + self.output + self.load + self.store + self.weights

    @property
    def recomputed(self) -> float:
        """Multiply-accumulates beyond the least, over the least."""
        return self.macs / self.least_macs - 1


def layer_weight_bytes(layer: Layer, channel_block: int, decoder: bool = False) -> int:
    """Bytes of a layer's weights and channel numbers in DRAM; decoder: of compressed weights."""
    stream = (
        rice.layer_bytes(layer, channel_block)
        if decoder
        else blobs.stream_bytes(layer.weight.shape, channel_block)
    )
    return stream + layer.out_channels * channel_bytes(layer)


def traffic(
    graph: IntegerGraph,
    plan: StripePlan,
    channel_block: int,
    height: int,
    width: int,
    decoder: bool = False,
) -> Traffic:
    """Walk the plan over an image of height x width pixels and count.

    decoder: the chip reads compressed weights.

    Rows and columns of a tile are independent, so both are walked once and multiplied.
    """
    layers = {layer.name: layer for layer in graph.layers}
    tall, wide = (-(-size // graph.grid) * graph.grid for size in (height, width))
    counts = dict.fromkeys(("image", "output", "load", "store", "weights", "macs"), 0)
    for group in plan.groups:
        steps = range(-group.prologue, -(-tall // group.tile_height))
        bands = range(-(-wide // group.tile_width))
        for item in group.items:
            level = level_of(graph, item)
            image = item.view is not None and item.view.buffer == IMAGE
            rows_end, columns_end = (height, width) if image else (tall >> level, wide >> level)
            rows = [len(rows_of(group, item, level, s, rows_end)) for s in steps]
            columns = [len(columns_of(group, item, level, b, columns_end)) for b in bands]
            pixels = sum(rows) * sum(columns)
            if item.layer is None:
                assert item.view is not None
                size = item.view.channels * graph.value_bytes(item.view)
                counts["image" if image else "load"] += pixels * size
                continue
            layer = layers[item.layer]
            spread = 4 if layer.op is Op.UP else 1
            counts["macs"] += pixels * int(layer.weight.size) // spread
            tiles = sum(map(bool, rows)) * sum(map(bool, columns))
            loads = tiles if item.weight_address is None else 1
            counts["weights"] += loads * layer_weight_bytes(layer, channel_block, decoder)
            if item.view is None:
                frame = height * width * contract.IMAGE_CHANNELS
                counts["image"] += frame
                counts["output"] += frame
            elif item.spill is not None:
                size = item.view.channels * graph.value_bytes(item.view)
                counts["store"] += rows_end * columns_end * size
    least = sum(graph.macs(layer, height, width) for layer in graph.layers)
    return Traffic(**counts, least_macs=least)
