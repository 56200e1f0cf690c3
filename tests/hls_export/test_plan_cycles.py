"""The cost of a plan against the plan's own account of its traffic."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, graphs, random_graph

from hls_export.costs import frame_costs
from hls_export.cycles import layer_by_layer, weight_transfer
from hls_export.npu import Chip, load_chip
from hls_export.plan import Group, Item, Spill, StripePlan, Window, input_span, traffic
from hls_export.plan_cycles import planned
from hls_export.planner import Options, plan_stripes
from quant.integer_graph import IMAGE, IntegerGraph, View

REFERENCE = load_chip("reference")


def chip(**changes: int) -> Chip:
    performance = REFERENCE.performance.model_copy(update=changes)
    return REFERENCE.model_copy(update={"performance": performance})


def a_group_per_layer(
    graph: IntegerGraph, tile_height: int, tile_width: int, resident: bool
) -> StripePlan:
    """Every layer on its own, tile by tile: loads what it reads, halo included, spills its output.

    tile_height, tile_width: in cells of the grid.
    """
    outputs = [layer.output for layer in graph.layers if layer.output is not None]
    spills = tuple(
        Spill(view, 0, index, len(graph.layers) - 1) for index, view in enumerate(outputs)
    )
    groups = []
    for layer in graph.layers:
        items: list[Item] = []
        windows: list[Window] = []

        def load(view: View, span: tuple[int, int]) -> int:
            for writer in [IMAGE] if view.buffer == IMAGE else outputs_in(view):
                source = view if isinstance(writer, str) else writer
                spill = None if isinstance(writer, str) else outputs.index(writer)
                item = Item(None, source, None, None, len(windows), spill, *span, *span)  # noqa: B023
                items.append(item)  # noqa: B023
            windows.append(Window(view.buffer, view.offset, view.channels, False, span[0], 1, 1, 0))  # noqa: B023
            return len(windows) - 1  # noqa: B023

        def outputs_in(view: View) -> list[View]:
            return [
                output
                for output in outputs
                if output.buffer == view.buffer
                and output.offset < view.end
                and view.offset < output.end
            ]

        source = load(layer.input, input_span(layer.op, (0, 0)))
        join = None if layer.join is None else load(layer.join, (0, 0))
        spill = None if layer.output is None else outputs.index(layer.output)
        address = 0 if resident else None
        if layer.output is not None:
            windows.append(Window(layer.output.buffer, 0, layer.output.channels, False, 0, 1, 1, 0))
        output = None if layer.output is None else len(windows) - 1
        items.append(
            Item(layer.name, layer.output, source, join, output, spill, 0, 0, 0, 0, address)
        )
        groups.append(
            Group(
                tile_height << graph.levels,
                tile_width << graph.levels,
                0,
                tuple(windows),
                tuple(items),
            )
        )
    return StripePlan(16, 1234, 0, tuple(groups), spills)


@given(
    graphs(max_levels=2, max_width=4), st.integers(1, 40), st.integers(1, 40),
    st.integers(1, 4), st.integers(1, 4), st.booleans(),
)  # fmt: skip
def test_a_plan_moves_what_its_own_account_says(
    graph: IntegerGraph, height: int, width: int, rows: int, columns: int, resident: bool
) -> None:
    plan = a_group_per_layer(graph, rows, columns, resident)
    used = chip(dram_burst_bytes=1)
    cost = planned(graph, plan, used, height, width)
    account = traffic(graph, plan, used.capability.channel_block, height, width)
    assert cost.traffic.dram == account.total
    assert cost.traffic.dram_write == account.store + account.output
    assert cost.macs == account.macs == account.least_macs
    assert cost.sram_bytes == plan.sram
    assert [layer.layer for layer in cost.layers] == [layer.name for layer in graph.layers]
    tiles = math.ceil(math.ceil(height / graph.grid) / rows) * math.ceil(
        math.ceil(width / graph.grid) / columns
    )
    for phase in cost.phases:
        assert sum(step.count for step in phase.steps) == tiles
    weights = sum(weight_transfer(used, layer) for layer in graph.layers)
    assert cost.traffic.weight_write == weights * tiles
    assert account.weights == weights * (1 if resident else tiles)


@pytest.mark.parametrize("sram", [6_000, 24_000])
def test_what_the_planner_finds_costs_what_it_says(sram: int) -> None:
    graph, used = random_graph(2, TINY), chip(dram_burst_bytes=1, sram_bytes=sram)
    plan = plan_stripes(graph, used, Options(frame=(64, 96)))
    for frame in ((37, 50), (64, 96), (8, 200), (1, 1)):
        cost = planned(graph, plan, used, *frame)
        account = traffic(graph, plan, used.capability.channel_block, *frame)
        assert cost.traffic.dram == account.total
        assert cost.macs >= account.macs
        assert cost.sram_bytes is not None
        assert cost.sram_bytes <= sram
        assert {layer.layer for layer in cost.layers} == {layer.name for layer in graph.layers}


def test_a_plan_stands_where_uniform_tiles_do_not_fit() -> None:
    graph, used = random_graph(2, TINY), chip(sram_bytes=100)
    plan = a_group_per_layer(graph, 1, 1, resident=False)
    assert list(frame_costs(graph, used, 5, 6, plan)) == ["stripe plan", "layer by layer"]
    with pytest.raises(ValueError, match="SRAM of its smallest tile"):
        frame_costs(graph, used, 5, 6)
    with pytest.raises(ValueError, match="costs: height must be at least 1, got 0"):
        frame_costs(graph, used, 0, 6, plan)


def test_one_tile_a_layer_computes_as_long_as_layer_by_layer() -> None:
    graph = random_graph(0, TINY)
    plan = a_group_per_layer(graph, 100, 100, resident=False)
    mine, theirs = planned(graph, plan, REFERENCE, 20, 30), layer_by_layer(graph, REFERENCE, 20, 30)
    for one, other in zip(mine.layers, theirs.layers, strict=True):
        assert (one.layer, one.compute_cycles) == (other.layer, other.compute_cycles)


def test_empty_frame_is_refused() -> None:
    graph = random_graph(0, TINY)
    with pytest.raises(ValueError, match="plan: width must be at least 1, got 0"):
        planned(graph, a_group_per_layer(graph, 1, 1, resident=True), REFERENCE, 5, 0)
