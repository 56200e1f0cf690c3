"""Proof of a stripe plan, whoever made it: replayed on a frame, row by row and column by column.

Nothing here comes from the planner. What an operation reads is taken from its definition, one row
(or column) of its output at a time; SRAM is a table of which row every slot of a ring holds, per
channel. Rows of a tile depend on its step alone and columns on its band alone, so each is replayed
once, and together they prove every tile.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hls_export import blobs
from hls_export.memory import align
from hls_export.plan import Group, Item, StripePlan, Window
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View

Held = npt.NDArray[np.int64]  # [slot, channel]: the row or column that lies there, -1 for none


def check_stripes(
    graph: IntegerGraph,
    plan: StripePlan,
    sram_bytes: int,
    channel_block: int,
    frame: tuple[int, int],
) -> None:
    """Prove a plan on padded frames: the smallest, two off every tile, and `frame` (height, width).

    Every read finds what was written and not yet overwritten; no live bytes overlap; all lies
    within the SRAM and DRAM that the plan states, and that within sram_bytes; every layer makes
    every pixel, every spill and the output are stored whole.

    Raises ValueError naming group, item and what does not hold.
    """
    _require(plan.sram <= sram_bytes, "plan", "sram", f"be at most {sram_bytes}", plan.sram)
    _check_spills(graph, plan)
    made: list[str] = []
    for index, group in enumerate(plan.groups):
        what = f"plan, group {index}"
        _check_items(graph, plan, index, group, what)
        _check_addresses(graph, plan, group, channel_block, what)
        for height, width in _frames(graph, group, frame):
            _replay(graph, group, height, True, what)
            _replay(graph, group, width, False, what)
        made += [item.layer for item in group.items if item.layer is not None]
    expected = {layer.name for layer in graph.layers}
    _require(set(made) == expected, "plan", "layers", f"be {sorted(expected)}", sorted(set(made)))


def _frames(graph: IntegerGraph, group: Group, frame: tuple[int, int]) -> Iterator[tuple[int, int]]:
    grid = graph.grid
    yield grid, grid
    for tiles in (1, 2):
        yield (
            align(tiles * group.tile_height + 1, grid),
            align(tiles * group.tile_width + 1, grid),
        )
    yield align(frame[0], grid), align(frame[1], grid)


def _check_spills(graph: IntegerGraph, plan: StripePlan) -> None:
    def size(view: View) -> int:
        pixel = view.channels * graph.value_bytes(view)
        return pixel << 2 * (graph.levels - graph.buffer(view.buffer).level)

    for spill in plan.spills:
        what = f"plan, spill of {spill.view.buffer}"
        aligned = spill.address % plan.alignment == 0
        _require(aligned, what, "address", f"be a multiple of {plan.alignment}", spill.address)
        end = spill.address + size(spill.view)
        _require(spill.address >= 0 and end <= plan.dram, what, "end", f"be <= {plan.dram}", end)
        users = [
            (index, item.layer is not None)
            for index, group in enumerate(plan.groups)
            for item in group.items
            if item.spill is not None and plan.spills[item.spill] == spill
        ]
        stored = [index for index, stores in users if stores]
        _require(stored == [spill.first], what, "stores", f"be in group {spill.first}", stored)
        last = max(index for index, _ in users)
        _require(last == spill.last, what, "last load", f"be in group {spill.last}", last)
    for one, other in itertools.combinations(plan.spills, 2):
        meet = one.first <= other.last and other.first <= one.last
        apart = (
            one.address + size(one.view) <= other.address
            or other.address + size(other.view) <= one.address
        )
        _require(apart or not meet, "plan", "spills", "be apart while both live", (one, other))


def _layer(graph: IntegerGraph, item: Item) -> Layer:
    return next(layer for layer in graph.layers if layer.name == item.layer)


def _reads(graph: IntegerGraph, item: Item) -> Iterator[tuple[View, int]]:
    """Views that a layer reads, each with its window."""
    if item.layer is None:
        return
    layer = _layer(graph, item)
    for view, window in ((layer.input, item.input), (layer.join, item.join)):
        if view is not None:
            assert window is not None
            yield view, window


def _check_items(
    graph: IntegerGraph, plan: StripePlan, index: int, group: Group, what: str
) -> None:
    """Items name layers of the graph in order, windows of their buffers, spills that are there."""
    order = [layer.name for layer in graph.layers]
    for item in group.items:
        where = f"{what}, {item.layer or 'load'}"
        if item.layer is None:
            assert item.view is not None
            if item.view.buffer == IMAGE:
                _require(item.spill is None, where, "spill", "be none for the image", item.spill)
            else:
                _require(item.spill is not None, where, "spill", "be there", None)
                assert item.spill is not None
                spill = plan.spills[item.spill]
                _require(spill.view == item.view, where, "spill", f"be of {item.view}", spill.view)
                _require(spill.first < index, where, "spill", "be stored before", spill.first)
        else:
            _require(item.layer in order, where, "layer", "be in the graph", item.layer)
            layer = _layer(graph, item)
            _require(layer.output == item.view, where, "view", f"be {layer.output}", item.view)
            present = (layer.join is None) == (item.join is None) and item.input is not None
            _require(
                present, where, "windows", "match what the layer reads", (item.input, item.join)
            )
        if item.view is not None:
            assert item.output is not None
            _check_window(
                group.windows[item.output], item.view, graph.value_bytes(item.view), where
            )
        for view, window in _reads(graph, item):
            _check_window(group.windows[window], view, graph.value_bytes(view), where)
    for size in (group.tile_height, group.tile_width):
        deepest = max(graph.buffer(window.buffer).level for window in group.windows)
        _require(size % (1 << deepest) == 0, what, "tile", f"be n * 2^{deepest}", size)


def _check_window(window: Window, view: View, value_bytes: int, where: str) -> None:
    holds = (
        window.buffer == view.buffer
        and window.value_bytes == value_bytes
        and window.offset <= view.offset
        and view.end <= window.offset + window.channels
    )
    _require(holds, where, "window", f"hold {view}", window)


def _check_addresses(
    graph: IntegerGraph, plan: StripePlan, group: Group, channel_block: int, what: str
) -> None:
    """No two things that are live at once share a byte; each aligned and within the SRAM."""
    spans: list[tuple[int, int, int, int, str]] = []  # address, end, first, last item
    last = len(group.items) - 1
    for number, window in enumerate(group.windows):
        users = [
            index
            for index, item in enumerate(group.items)
            if item.output == number or number in [w for _, w in _reads(graph, item)]
        ]
        first, final = (0, last) if window.keep else (users[0], users[-1])
        spans.append((window.address, window.end, first, final, f"window {window.buffer}"))
    for item in group.items:
        if item.weight_address is not None:
            layer = _layer(graph, item)
            size = blobs.stream_bytes(layer.weight.shape, channel_block)
            end = item.weight_address + size
            spans.append((item.weight_address, end, 0, last, f"weights of {layer.name}"))
    for start, end, _, _, name in spans:
        _require(start % plan.alignment == 0, what, name, f"be aligned {plan.alignment}", start)
        _require(start >= 0 and end <= plan.sram, what, name, f"end by {plan.sram}", end)
    for one, other in itertools.combinations(spans, 2):
        meet = one[2] <= other[3] and other[2] <= one[3]
        apart = one[1] <= other[0] or other[1] <= one[0]
        _require(apart or not meet, what, one[4], f"be apart from {other[4]}", one[:2])


def _replay(graph: IntegerGraph, group: Group, size: int, vertical: bool, what: str) -> None:
    """One axis of a frame of `size` padded pixels: which rows (or columns) lie in each window."""
    tile = group.tile_height if vertical else group.tile_width
    tiles = range(-group.prologue if vertical else 0, -(-size // tile))
    axis = "row" if vertical else "column"
    kept = [np.full((w.rows if vertical else w.columns, w.channels), -1) for w in group.windows]
    covered = [np.zeros(size >> _level(graph, item), np.int64) for item in group.items]
    for step in tiles:
        fresh = [np.full_like(table, -1) for table in kept]
        held = [
            kept[index] if vertical and window.keep else fresh[index]
            for index, window in enumerate(group.windows)
        ]
        for item, cover in zip(group.items, covered, strict=True):
            where = f"{what}, {item.layer or 'load'}, {axis}s of tile {step}"
            level = _level(graph, item)
            first, last = (item.top, item.bottom) if vertical else (item.left, item.right)
            start, end = step * (tile >> level), (step + 1) * (tile >> level)
            made = np.arange(max(start + first, 0), max(min(end + last, size >> level), 0))
            for place, (view, number) in enumerate(_reads(graph, item)):
                op = _layer(graph, item).op if place == 0 else None
                source = graph.buffer(view.buffer).level
                needed = _needed(op, made, size >> source)
                _read(graph, group, held, number, view, needed, step, tile, vertical, where)
            if item.view is not None:
                assert item.output is not None
                window = group.windows[item.output]
                slots = _slots(graph, window, made, step, tile, vertical, where)
                low = item.view.offset - window.offset
                held[item.output][slots, low : low + item.view.channels] = made[:, None]
            if vertical:
                start, end = start + last, end + last
            core = np.arange(max(start, 0), max(min(end, size >> level), 0))
            missing = np.setdiff1d(core, made)
            _require(not missing.size, where, "what is stored", "be made", missing)
            cover[core] += 1
    for item, cover in zip(group.items, covered, strict=True):
        where = f"{what}, {item.layer or 'load'}"
        once = bool((cover == 1).all())
        _require(once, where, f"{axis}s", "be made once each over all tiles", np.unique(cover))


def _level(graph: IntegerGraph, item: Item) -> int:
    return 0 if item.view is None else graph.buffer(item.view.buffer).level


def _needed(op: Op | None, made: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Input rows that these output rows read, of those that exist; of a join (None) the same."""
    if op is None or op is Op.CONV1X1:
        return made
    if op is Op.UP:
        return np.unique(made // 2)
    taps = (op.stride * made[:, None] + np.array([-1, 0, 1])).ravel()
    return np.unique(taps[(taps >= 0) & (taps < size)])


def _slots(
    graph: IntegerGraph,
    window: Window,
    places: npt.NDArray[np.int64],
    step: int,
    tile: int,
    vertical: bool,
    where: str,
) -> npt.NDArray[np.int64]:
    """Slots of a window: a ring of rows, columns from the window's left."""
    if vertical:
        slots = places % window.rows
        unique = len(np.unique(slots)) == len(slots)
        _require(unique, where, "rows", f"fit the ring of {window.rows}", places)
        return slots
    level = graph.buffer(window.buffer).level
    slots = places - max(0, step * (tile >> level) + window.left)
    fits = not slots.size or (slots.min() >= 0 and slots.max() < window.columns)
    _require(bool(fits), where, "columns", f"fit the window of {window.columns}", places)
    return slots


def _read(
    graph: IntegerGraph,
    group: Group,
    held: list[Held],
    number: int,
    view: View,
    needed: npt.NDArray[np.int64],
    step: int,
    tile: int,
    vertical: bool,
    where: str,
) -> None:
    window = group.windows[number]
    slots = _slots(graph, window, needed, step, tile, vertical, where)
    low = view.offset - window.offset
    found = held[number][slots, low : low + view.channels]
    right = bool((found == needed[:, None]).all())
    _require(right, where, f"input {view}", "lie in its window", (needed, found[:, :1].ravel()))


def _require(holds: bool, what: str, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{what}: {name} must {rule}, got {value}")
