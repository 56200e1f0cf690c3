"""Uniform tiles against a frame computed pixel by pixel: halos, coverage, SRAM, DRAM."""

import functools
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EDGE, TINY, graphs, random_graph

from hls_export.costs import frame_costs
from hls_export.cycles import Phase, layer_by_layer, weight_transfer
from hls_export.memory import level_size
from hls_export.npu import Chip, load_chip
from hls_export.uniform_tiles import (
    LAYERS_MAX,
    PICTURE,
    Cut,
    Flow,
    Span,
    best_tile,
    plan_cuts,
    tile_phase,
    uniform_tiles,
)
from quant.contract import Op
from quant.integer_graph import IntegerGraph

REFERENCE = load_chip("reference")


def chip(**changes: int) -> Chip:
    performance = REFERENCE.performance.model_copy(update=changes)
    return REFERENCE.model_copy(update={"performance": performance})


def positions(flow: Flow, layer: int, outputs: set[int]) -> set[int]:
    """Positions of the convolution behind the outputs, along one axis."""
    if flow.layers[layer].op is Op.UP:
        return {place // 2 for place in outputs}
    return outputs


def asked(flow: Flow, layer: int, places: set[int], size: int) -> set[int]:
    """Input pixels that positions of a convolution read, along one axis of `size` pixels."""
    op = flow.layers[layer].op
    reach = range(-(op.kernel // 2), op.kernel // 2 + 1)
    return {op.stride * place + tap for place in places for tap in reach} & set(range(size))


def needed(flow: Flow, phase: range, start: int, end: int, size: int) -> tuple[dict, dict]:  # type: ignore[type-arg]
    """Along one axis, pixel by pixel: what a tile computes of each layer and reads from others."""
    coarsest = flow.coarsest(phase)
    wanted: dict[int, set[int]] = {}
    computed = {}
    for index in reversed(phase):
        if flow.leaves(index, phase):
            scale, limit = coarsest - flow.level(index), size >> flow.level(index)
            own = set(range(start << scale, end << scale)) & set(range(limit))
            wanted.setdefault(index, set()).update(own)
        outputs = wanted.pop(index)
        computed[index] = positions(flow, index, outputs)
        if flow.layers[index].op is Op.UP:
            outputs = {2 * place + half for place in computed[index] for half in (0, 1)}
        for writer in flow.joins[index]:
            wanted.setdefault(writer, set()).update(outputs)
        for writer in flow.inputs[index]:
            limit = size >> flow.level(writer)
            places = asked(flow, index, computed[index], limit)
            wanted.setdefault(writer, set()).update(places)
    return computed, wanted


def assert_hull(interval: tuple[int, int], places: set[int]) -> None:
    assert interval == (min(places), max(places) + 1)


@given(graphs(max_levels=3, max_width=3), st.integers(1, 40), st.integers(1, 5), st.data())
def test_a_tile_computes_and_reads_what_its_pixels_need(
    graph: IntegerGraph, size: int, tile: int, data: st.DataObject
) -> None:
    flow = Flow(graph)
    first = data.draw(st.integers(0, len(graph.layers) - 1))
    phase = range(first, data.draw(st.integers(first + 1, min(len(graph.layers), first + 12))))
    padded, _ = level_size(graph.levels, size, size, 0)
    covered: dict[int, list[int]] = {}
    for start in range(0, padded >> flow.coarsest(phase), tile):
        span = flow.span(phase, start, start + tile, padded)
        computed, read = needed(flow, phase, start, start + tile, padded)
        assert span.computed.keys() == computed.keys()
        assert span.loaded.keys() == read.keys()
        for found, places in ((span.computed, computed), (span.loaded, read)):
            for index, interval in found.items():
                assert_hull(interval, places[index])
        for index, (low, high) in span.stored.items():
            covered.setdefault(index, []).extend(range(low, high))
    for index, places in covered.items():  # every pixel that leaves the phase, once
        assert places == list(range(padded >> flow.level(index)))
    assert covered.keys() == {index for index in phase if flow.leaves(index, phase)}


@given(graphs(max_levels=2, max_width=6), st.integers(1, 40), st.integers(1, 40))
def test_a_frame_that_fits_is_one_tile(graph: IntegerGraph, height: int, width: int) -> None:
    roomy = chip(sram_bytes=1 << 30, weight_buffer_bytes=1 << 30, dram_burst_bytes=1)
    flow = Flow(graph)
    whole = range(len(graph.layers))
    rows, columns = level_size(graph.levels, height, width, flow.coarsest(whole))
    cost = tile_phase(flow, roomy, Cut(whole, rows, columns), height, width)
    weights = sum(weight_transfer(roomy, layer) for layer in graph.layers)
    assert [step.count for step in cost.steps] == [1]
    assert cost.traffic.dram_read == 3 * height * width + weights
    assert cost.traffic.dram_write == 3 * height * width
    assert cost.macs == sum(graph.macs(layer, height, width) for layer in graph.layers)


@given(graphs(max_levels=1, max_width=6), st.integers(1, 30), st.integers(1, 30),
       st.sampled_from([2048, 4096, 16384]))  # fmt: skip
def test_tiles_fit_and_what_they_move_adds_up(
    graph: IntegerGraph, height: int, width: int, sram: int
) -> None:
    small = chip(sram_bytes=sram, dram_burst_bytes=1)
    cost = uniform_tiles(graph, small, height, width)
    assert [layer.layer for layer in cost.layers] == [layer.name for layer in graph.layers]
    assert cost.sram_bytes is not None
    held = [use.total for phase in cost.phases for use in phase.sram]
    assert max(held) == cost.sram_bytes <= sram
    baseline = layer_by_layer(graph, small, height, width)
    for mine, theirs in zip(cost.layers, baseline.layers, strict=True):
        assert mine.macs >= theirs.macs
        assert mine.traffic.dram_write <= theirs.traffic.dram_write
    assert_tiles_add_up(Flow(graph), small, height, width, cost.phases)


def assert_tiles_add_up(
    flow: Flow, used: Chip, height: int, width: int, phases: tuple[Phase, ...]
) -> None:
    """Totals of every phase from its tiles' areas, counted here without bursts."""
    padded = level_size(flow.graph.levels, height, width, 0)
    for cut, phase in zip(plan_cuts(flow, used, height, width), phases, strict=True):
        down, across = (
            [
                flow.span(cut.layers, start, start + step, side)
                for start in range(0, side >> flow.coarsest(cut.layers), step)
            ]
            for step, side in zip((cut.rows, cut.columns), padded, strict=True)
        )
        macs = read = 0
        for rows, columns in itertools.product(down, across):
            macs += sum(
                area(rows, columns, "computed", index) * flow.layers[index].weight.size
                for index in cut.layers
            )
            read += sum(
                area(rows, columns, "loaded", writer) * flow.pixel_bytes(writer)
                for writer in rows.loaded
                if writer != PICTURE
            )
        assert phase.macs == macs
        assert sum(step.count for step in phase.steps) == len(down) * len(across)
        weights = phase.traffic.weight_write
        loaded = sum(weight_transfer(used, flow.layers[index]) for index in cut.layers)
        assert weights in (loaded, loaded * len(down) * len(across))
        image = phase.traffic.dram_read - weights - read
        assert (image > 0) == (PICTURE in down[0].loaded)
        assert image >= 0


def area(rows: Span, columns: Span, kind: str, index: int) -> int:
    sides = (getattr(span, kind)[index] for span in (rows, columns))
    return math.prod(high - low for low, high in sides)


def test_cuts_are_the_best_of_all() -> None:
    """Every way to cut the layers, tried one by one."""
    graph, used = random_graph(0, TINY), chip(sram_bytes=3000)
    flow, count = Flow(graph), len(graph.layers)

    @functools.cache
    def cycles(start: int, end: int) -> float:
        found = best_tile(flow, used, range(start, end), 33, 47)
        return math.inf if found is None or end - start > LAYERS_MAX else found[0]

    chosen = [cut.layers for cut in plan_cuts(flow, used, 33, 47)]
    assert [index for layers in chosen for index in layers] == list(range(count))
    least = math.inf
    for places in itertools.product((False, True), repeat=count - 1):
        ends = [index + 1 for index, cut in enumerate(places) if cut] + [count]
        least = min(least, sum(map(cycles, [0, *ends], ends)))
    assert sum(cycles(layers.start, layers.stop) for layers in chosen) == least < math.inf


def test_edge_needs_a_fraction_of_the_traffic() -> None:
    costs = frame_costs(random_graph(0, EDGE), REFERENCE, 270, 480)
    tiles, layers = costs.values()
    assert tiles.traffic.dram < 0.6 * layers.traffic.dram
    assert tiles.macs < 1.3 * layers.macs


def test_what_fits_no_tile_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match="chip reference, layer head: SRAM of its smallest tile must be at most 40 bytes",
    ):
        uniform_tiles(random_graph(0, TINY), chip(sram_bytes=40), 20, 20)
    with pytest.raises(ValueError, match="tiles: height must be at least 1, got 0"):
        uniform_tiles(random_graph(0, TINY), REFERENCE, 0, 20)


def test_the_figures_repeat() -> None:
    graph = random_graph(4, TINY)
    assert uniform_tiles(graph, REFERENCE, 30, 40) == uniform_tiles(graph, REFERENCE, 30, 40)
