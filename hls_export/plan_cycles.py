"""The cost of a stripe plan: every item of every tile of every group on the array and on DMA."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from hls_export.cycles import (
    FrameCost,
    Phase,
    Step,
    Traffic,
    Work,
    burst_bytes,
    compute_work,
    macs_per_cycle,
    phase_cost,
    value_bytes,
    weight_dram,
    weight_transfer,
)
from hls_export.memory import check_size, level_size
from hls_export.npu import Chip
from hls_export.plan import (
    Group,
    Item,
    StripePlan,
    clamped,
    columns_of,
    level_of,
    new_rows_of,
    rows_of,
)
from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer

NOTHING = Work(0, 0, Traffic())


@dataclass(frozen=True)
class Frame:
    """What a plan runs on: a graph, a chip, an image of height x width pixels."""

    graph: IntegerGraph
    chip: Chip
    height: int
    width: int

    @functools.cached_property
    def layers(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.graph.layers}

    def padded(self, level: int) -> tuple[int, int]:
        return level_size(self.graph.levels, self.height, self.width, level)


def planned(
    graph: IntegerGraph, plan: StripePlan, chip: Chip, height: int, width: int
) -> FrameCost:
    """Time, traffic and energy of a plan on a frame; a phase is a group.

    A load counts to the first layer of its group that reads its window. Raises ValueError when a
    size is not positive.
    """
    check_size("plan", height, width)
    frame = Frame(graph, chip, height, width)
    return FrameCost(
        height,
        width,
        chip.performance.clock_hz,
        macs_per_cycle(chip.performance),
        tuple(_phase(frame, group) for group in plan.groups),
        plan.sram,
    )


def _phase(frame: Frame, group: Group) -> Phase:
    names = [item.layer for item in group.items if item.layer is not None]
    runs = itertools.groupby(_tiles(frame, group))
    steps = [Step(len(list(run)), work) for work, run in runs]
    return phase_cost(names, steps, frame.chip.performance)


def _tiles(frame: Frame, group: Group) -> Iterator[tuple[Work, ...]]:
    """The work of each layer, tile after tile; weights that stay come with the first tile."""
    height, width = frame.padded(0)
    owner = _owners(group)
    work_of = functools.cache(functools.partial(_item_work, frame))
    first = True
    for band in range(-(-width // group.tile_width)):
        for step in range(-group.prologue, -(-height // group.tile_height)):
            work = [NOTHING] * (max(owner.values()) + 1)
            for index, item in enumerate(group.items):
                made, stored = _regions(frame, group, item, band, step)
                work[owner[index]] += work_of(item, made, stored, first)
            first = False
            yield tuple(work)


def _owners(group: Group) -> dict[int, int]:
    """Item -> place among the group's layers of the layer that it counts to."""
    layers = [index for index, item in enumerate(group.items) if item.layer is not None]
    found = {index: place for place, index in enumerate(layers)}
    for index, item in enumerate(group.items):
        if item.layer is None:
            readers = (
                place
                for place, reader in enumerate(layers)
                if item.output in (group.items[reader].input, group.items[reader].join)
            )
            found[index] = next(readers)
    return found


Size = tuple[int, int]  # rows, columns


def _regions(frame: Frame, group: Group, item: Item, band: int, step: int) -> tuple[Size, Size]:
    """What an item makes in a tile, for UP before the pixel shuffle, and what it stores in DRAM.

    The image and the output have no padding in DRAM.
    """
    level = level_of(frame.graph, item)
    pixels = item.view is None or item.view.buffer == IMAGE
    height, width = frame.padded(level)
    rows = rows_of(group, item, level, step, height)
    columns = columns_of(group, item, level, band, width)
    new = new_rows_of(group, item, level, step, height)
    wide = group.tile_width >> level
    own = clamped(band * wide, (band + 1) * wide, width)
    if item.layer is None or item.view is None:
        new, own = rows, columns
    if pixels:
        new = range(min(new.start, frame.height), min(new.stop, frame.height))
        own = range(min(own.start, frame.width), min(own.stop, frame.width))
    made = len(rows), len(columns)
    if item.layer is not None and frame.layers[item.layer].op is Op.UP:
        made = _halved(rows), _halved(columns)
    return made, (len(new), len(own))


def _halved(span: range) -> int:
    """Positions before the pixel shuffle."""
    return (span.stop + 1) // 2 - span.start // 2 if span else 0


def _item_work(frame: Frame, item: Item, made: Size, moved: Size, first: bool) -> Work:
    """A load or a layer in one tile; first: of the group's tiles."""
    performance = frame.chip.performance
    channels = contract.IMAGE_CHANNELS if item.view is None else item.view.channels
    pixel = channels * frame.graph.value_bytes(item.view)
    in_bursts = moved[0] * burst_bytes(moved[1] * pixel, performance.dram_burst_bytes)
    if item.layer is None:
        return Work(0, 0, Traffic(dram_read=in_bursts, sram_write=made[0] * made[1] * pixel))
    layer = frame.layers[item.layer]
    weights = weight_transfer(frame.chip, layer)
    from_dram = weight_dram(frame.chip, layer)
    work = NOTHING
    if first and item.weight_address is not None:  # to SRAM, and from there with every tile
        work += Work(0, 0, Traffic(dram_read=from_dram, sram_write=weights))
    if 0 in made:
        return work
    work += compute_work(layer, *made, performance, value_bytes(frame.graph, layer))
    traffic = work.traffic + Traffic(weight_write=weights)
    if item.weight_address is None:
        traffic += Traffic(dram_read=from_dram)
    else:
        traffic += Traffic(sram_read=weights)
    if item.view is None:  # the image comes again, to be subtracted from
        traffic += Traffic(dram_read=in_bursts, sram_write=in_bursts)
    if item.view is None or item.spill is not None:
        traffic += Traffic(dram_write=in_bursts, sram_read=in_bursts)
    return Work(work.macs, work.compute_cycles, traffic)
