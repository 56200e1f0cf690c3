"""A stripe plan in words: what each tile does, and what differs between two plans."""

from collections.abc import Iterator

from hls_export.plan import Group, Item, StripePlan, Window
from quant.integer_graph import View


def plan_lines(plan: StripePlan) -> Iterator[str]:
    """The listing: groups, their windows in SRAM, and a tile's items in their order."""
    yield f"plan  {plan.sram} bytes of SRAM, {plan.dram} bytes of DRAM per cell for spills"
    for index, spill in enumerate(plan.spills):
        yield (
            f"spill {index}  {_view(spill.view)} at {spill.address} * cells, stored by group "
            f"{spill.first}, last loaded by group {spill.last}"
        )
    for index, group in enumerate(plan.groups):
        yield (
            f"group {index}  bands of {group.tile_width} columns, steps of {group.tile_height} rows"
            f" from step {-group.prologue}"
        )
        for place, window in enumerate(group.windows):
            kind = "line buffer" if window.keep else "recomputed"
            yield (
                f"    window {place}  {window.address}..{window.end}  "
                f"{_window(window)}, {kind}, {window.rows} rows x {window.columns} columns"
            )
        for item in group.items:
            yield f"    {_item(plan, group, item)}"


def plan_changes(one: StripePlan, other: StripePlan) -> Iterator[str]:
    """What differs, group by group where their number is the same."""
    for name in ("alignment", "sram", "dram"):
        if getattr(one, name) != getattr(other, name):
            yield f"{name} {getattr(one, name)} -> {getattr(other, name)}"
    layers = [[item.layer for item in group.items] for group in one.groups]
    if layers != [[item.layer for item in group.items] for group in other.groups]:
        yield f"groups {_cuts(one)} -> {_cuts(other)}"
        return
    for index, (mine, theirs) in enumerate(zip(one.groups, other.groups, strict=True)):
        for title, size, their_size in (
            ("tile", _tile(mine), _tile(theirs)),
            ("prologue", mine.prologue, theirs.prologue),
        ):
            if size != their_size:
                yield f"group {index} {title} {size} -> {their_size}"
        for title, count in (
            ("windows", _differing(mine.windows, theirs.windows)),
            ("items", _differing(mine.items, theirs.items)),
        ):
            if count:
                yield f"group {index}: {count} {title} differ"
    spills = _differing(one.spills, other.spills)
    if spills:
        yield f"{spills} spills differ"


def _differing(one: tuple[object, ...], other: tuple[object, ...]) -> int:
    pairs = sum(mine != theirs for mine, theirs in zip(one, other, strict=False))
    return pairs + abs(len(one) - len(other))


def _cuts(plan: StripePlan) -> str:
    firsts = (next(item.layer for item in group.items if item.layer) for group in plan.groups)
    return f"{len(plan.groups)} ({', '.join(map(str, firsts))})"


def _tile(group: Group) -> str:
    return f"{group.tile_width}x{group.tile_height}"


def _view(view: View) -> str:
    return f"{view.buffer}[{view.offset}:{view.end}]"


def _window(window: Window) -> str:
    return _view(View(window.buffer, window.offset, window.channels))


def _item(plan: StripePlan, group: Group, item: Item) -> str:
    """One thing that a tile does, with the rows and columns around its own."""
    span = f"rows {item.top:+d}..{item.bottom:+d}, columns {item.left:+d}..{item.right:+d}"
    if item.layer is None:
        assert item.view is not None
        source = "the image" if item.spill is None else f"spill {item.spill}"
        return f"load {_view(item.view)} from {source} into window {item.output}, {span}"
    reads = [f"window {place}" for place in (item.input, item.join) if place is not None]
    target = "the output" if item.output is None else f"window {item.output}"
    stored = "" if item.spill is None else f" and spill {item.spill}"
    weights = (
        "weights stream in" if item.weight_address is None else f"weights at {item.weight_address}"
    )
    return f"{item.layer}: {' + '.join(reads)} -> {target}{stored}, {span}; {weights}"
