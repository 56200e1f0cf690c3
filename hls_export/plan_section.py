"""Section PLAN of a bundle: a stripe plan as records, and back (docs/FORMAT.md)."""

from collections.abc import Mapping
from typing import TypeVar

from hls_export.layer_table import (
    PlanGroupRecord,
    PlanItemRecord,
    PlanRecord,
    PlanSpillRecord,
    PlanWindowRecord,
    Record,
    pack_table,
    unpack_table,
)
from hls_export.plan import Group, Item, Spill, StripePlan, Window
from quant.integer_graph import IntegerGraph, View

R = TypeVar("R", bound=Record)
NONE = 0xFFFFFFFF
REACH = 65536  # largest tile and offset
KEEP = 1  # flags of a window


def pack_plan(graph: IntegerGraph, plan: StripePlan) -> bytes:
    """The bytes of section PLAN: its head, then groups, windows, items, spills."""
    buffers = {buffer.name: index for index, buffer in enumerate(graph.buffers)}
    layers = {layer.name: index for index, layer in enumerate(graph.layers)}
    groups: list[PlanGroupRecord] = []
    windows: list[PlanWindowRecord] = []
    items: list[PlanItemRecord] = []
    for group in plan.groups:
        groups.append(
            PlanGroupRecord(
                first_window=len(windows),
                window_count=len(group.windows),
                first_item=len(items),
                item_count=len(group.items),
                tile_height=group.tile_height,
                tile_width=group.tile_width,
                prologue=group.prologue,
            )
        )
        windows += [
            PlanWindowRecord(
                buffer=buffers[window.buffer],
                channel_offset=window.offset,
                channels=window.channels,
                flags=KEEP if window.keep else 0,
                left=window.left,
                rows=window.rows,
                columns=window.columns,
                address=window.address,
            )
            for window in group.windows
        ]
        items += [_pack_item(item, layers) for item in group.items]
    spills = [
        PlanSpillRecord(
            buffer=buffers[spill.view.buffer],
            channel_offset=spill.view.offset,
            channels=spill.view.channels,
            address_per_cell=spill.address,
            first_group=spill.first,
            last_group=spill.last,
        )
        for spill in plan.spills
    ]
    head = PlanRecord(
        alignment=plan.alignment,
        sram_bytes=plan.sram,
        dram_bytes_per_cell=plan.dram,
        group_count=len(groups),
        window_count=len(windows),
        item_count=len(items),
        spill_count=len(spills),
    )
    tables = (groups, windows, items, spills)
    return head.pack() + b"".join(pack_table(table) for table in tables)


def _pack_item(item: Item, layers: Mapping[str, int]) -> PlanItemRecord:
    def index(value: int | None) -> int:
        return NONE if value is None else value

    view = item.view
    return PlanItemRecord(
        layer=NONE if item.layer is None else layers[item.layer],
        input=index(item.input),
        join=index(item.join),
        output=index(item.output),
        spill=index(item.spill),
        channel_offset=0 if view is None else view.offset,
        channels=0 if view is None else view.channels,
        top=item.top,
        bottom=item.bottom,
        left=item.left,
        right=item.right,
        weight_address=index(item.weight_address),
    )


def unpack_plan(graph: IntegerGraph, data: bytes) -> StripePlan:
    """Read section PLAN; raises ValueError when its tables do not agree with each other."""
    size = PlanRecord.SIZE
    _require(len(data) >= size, "PLAN size", f"be at least {size}", len(data))
    head = PlanRecord.unpack(data[:size], "PLAN")
    end = (
        size
        + PlanGroupRecord.SIZE * head.group_count
        + PlanWindowRecord.SIZE * head.window_count
        + PlanItemRecord.SIZE * head.item_count
        + PlanSpillRecord.SIZE * head.spill_count
    )
    _require(len(data) == end, "PLAN size", f"be {end}", len(data))
    start = size

    def table(record: type[R], count: int) -> tuple[R, ...]:
        nonlocal start
        rows = unpack_table(record, data[start : start + record.SIZE * count], "PLAN")
        start += record.SIZE * count
        return rows

    groups = table(PlanGroupRecord, head.group_count)
    windows = table(PlanWindowRecord, head.window_count)
    items = table(PlanItemRecord, head.item_count)
    spills = table(PlanSpillRecord, head.spill_count)

    def view(buffer: int, offset: int, channels: int) -> View:
        _require(buffer < len(graph.buffers), "PLAN buffer", f"be < {len(graph.buffers)}", buffer)
        whole = graph.buffers[buffer]
        fits = channels >= 1 and offset + channels <= whole.channels
        _require(fits, "PLAN channels", f"lie in {whole.name}", (offset, channels))
        return View(whole.name, offset, channels)

    found, next_window, next_item = [], 0, 0
    for record in groups:
        starts = (record.first_window, record.first_item)
        _require(starts == (next_window, next_item), "PLAN group", "follow the one before", starts)
        next_window += record.window_count
        next_item += record.item_count
        for name in ("tile_height", "tile_width"):
            size = getattr(record, name)
            _require(1 <= size <= REACH, f"PLAN {name}", f"be in 1..{REACH}", size)
        _require(record.prologue <= REACH, "PLAN prologue", f"be at most {REACH}", record.prologue)
        mine = [
            Window(
                *_parts(view(w.buffer, w.channel_offset, w.channels)),
                keep=bool(w.flags & KEEP),
                left=w.left,
                rows=w.rows,
                columns=w.columns,
                address=w.address,
                value_bytes=graph.buffers[w.buffer].bits // 8,
            )
            for w in windows[record.first_window : next_window]
        ]
        found.append(
            Group(
                record.tile_height,
                record.tile_width,
                record.prologue,
                tuple(mine),
                tuple(
                    _read_item(graph, mine, head.spill_count, item)
                    for item in items[record.first_item : next_item]
                ),
            )
        )
    ends = (next_window, next_item)
    whole = (head.window_count, head.item_count)
    _require(ends == whole, "PLAN groups", f"cover {whole} windows and items", ends)
    return StripePlan(
        head.alignment,
        head.sram_bytes,
        head.dram_bytes_per_cell,
        tuple(found),
        tuple(
            Spill(
                view(s.buffer, s.channel_offset, s.channels),
                s.address_per_cell,
                s.first_group,
                s.last_group,
            )
            for s in spills
        ),
    )


def _parts(view: View) -> tuple[str, int, int]:
    return view.buffer, view.offset, view.channels


def _read_item(
    graph: IntegerGraph, windows: list[Window], spill_count: int, item: PlanItemRecord
) -> Item:
    def window(index: int) -> int | None:
        known = index == NONE or index < len(windows)
        _require(known, "PLAN item window", f"be below {len(windows)}", index)
        return None if index == NONE else index

    for name in ("top", "bottom", "left", "right"):
        offset = getattr(item, name)
        _require(abs(offset) <= REACH, f"PLAN item {name}", f"be within {REACH}", offset)
    layers = graph.layers
    known = item.layer == NONE or item.layer < len(layers)
    _require(known, "PLAN item layer", f"be below {len(layers)}", item.layer)
    output = window(item.output)
    spilled = item.spill == NONE or item.spill < spill_count
    _require(spilled, "PLAN item spill", f"be below {spill_count}", item.spill)
    complete = output is not None if item.layer == NONE else item.input != NONE
    _require(complete, "PLAN item", "name its windows", item)
    view = (
        None if output is None else View(windows[output].buffer, item.channel_offset, item.channels)
    )
    return Item(
        None if item.layer == NONE else layers[item.layer].name,
        view,
        window(item.input),
        window(item.join),
        output,
        None if item.spill == NONE else item.spill,
        item.top,
        item.bottom,
        item.left,
        item.right,
        None if item.weight_address == NONE else item.weight_address,
    )


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"bundle: {name} must {rule}, got {value}")
