"""The address plan: proven on random graphs, and each way to be wrong refused."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EDGE, graphs, random_graph

from hls_export.memory import (
    Allocation,
    Plan,
    bytes_per_cell,
    cells,
    check_plan,
    plan_memory,
    views,
)
from quant.integer_graph import IMAGE, IntegerGraph, View

alignments = st.sampled_from([1, 2, 4, 8, 16, 32, 64])


@given(graphs(), alignments, st.integers(1, 70), st.integers(1, 70))
def test_no_layer_meets_bytes_that_another_buffer_holds(
    graph: IntegerGraph, alignment: int, height: int, width: int
) -> None:
    """Replay the schedule on a real arena: who wrote a byte last is who its reader expects."""
    plan = plan_memory(graph, alignment)
    count = cells(graph.levels, height, width)
    owner: list[str | None] = [None] * (plan.arena * count)

    def region(view: View) -> slice:
        start = plan[view.buffer].address * count
        assert start % alignment == 0
        size = bytes_per_cell(graph.buffer(view.buffer), graph.levels) * count
        assert start + size <= len(owner)
        return slice(start, start + size)

    begun = set()
    for layer in graph.layers:
        for view in views(layer):
            if view.buffer == IMAGE:
                continue
            if view is layer.output and view.buffer not in begun:
                begun.add(view.buffer)
                bytes_of = region(view)
                owner[bytes_of] = [view.buffer] * (bytes_of.stop - bytes_of.start)
            assert set(owner[region(view)]) == {view.buffer}, (layer.name, view)


@given(graphs(), alignments)
def test_arena_lies_between_the_busiest_layer_and_the_sum(
    graph: IntegerGraph, alignment: int
) -> None:
    plan = plan_memory(graph, alignment)
    rounded = sum(-(-a.size // alignment) * alignment for a in plan.allocations)
    assert plan.peak <= plan.arena <= rounded
    live = [
        sum(
            bytes_per_cell(graph.buffer(name), graph.levels)
            for name in {view.buffer for other in graph.layers for view in views(other)} - {IMAGE}
            if min(touching(graph, name)) <= index <= max(touching(graph, name))
        )
        for index in range(len(graph.layers))
    ]
    assert plan.peak == max(live)


def touching(graph: IntegerGraph, name: str) -> list[int]:
    return [
        index
        for index, layer in enumerate(graph.layers)
        if any(view.buffer == name for view in views(layer))
    ]


def test_edge_network_needs_no_byte_more_than_its_busiest_layer() -> None:
    plan = plan_memory(random_graph(0, EDGE), 16)
    assert plan.arena == plan.peak


def test_cells_round_up_to_the_grid() -> None:
    assert cells(2, 1, 1) == 1
    assert cells(2, 4, 5) == 2
    assert cells(4, 1080, 1920) == 68 * 120


def replaced(plan: Plan, buffer: str, **fields: int) -> Plan:
    return dataclasses.replace(
        plan,
        allocations=tuple(
            dataclasses.replace(a, **fields) if a.buffer == buffer else a for a in plan.allocations
        ),
    )


def test_each_breach_of_a_plan_is_refused_by_name() -> None:
    graph = random_graph(0)
    plan = plan_memory(graph, 16)
    pair = next(
        (one, other)
        for one, other in itertools.permutations(plan.allocations, 2)
        if one.meets(other)
    )
    one, other = pair
    for broken, message in (
        (replaced(plan, one.buffer, address=one.address + 8), "address must be a multiple of 16"),
        (replaced(plan, one.buffer, address=-16), "bytes must lie within the arena"),
        (replaced(plan, one.buffer, address=plan.arena), "bytes must lie within the arena"),
        (replaced(plan, one.buffer, size=one.size - 1), "size must be"),
        (replaced(plan, one.buffer, last=one.last - 1), "lifetime must be"),
        (replaced(plan, other.buffer, address=one.address), "must be apart while both live"),
        (dataclasses.replace(plan, allocations=plan.allocations[1:]), "buffers must be"),
        (dataclasses.replace(plan, arena=plan.arena + 1), "arena must be a multiple of 16"),
    ):
        with pytest.raises(ValueError, match=message):
            check_plan(graph, broken)


def test_buffers_apart_in_time_may_share_bytes() -> None:
    early, late = Allocation("a", 0, 16, 0, 3), Allocation("b", 0, 16, 4, 5)
    assert not early.meets(late)
    assert early.meets(dataclasses.replace(late, first=3))


def test_buffer_that_nobody_uses_is_refused() -> None:
    graph = random_graph(0)
    idle = dataclasses.replace(graph.buffers[1], name="idle")
    with pytest.raises(ValueError, match="buffer idle: users must be at least one layer"):
        plan_memory(dataclasses.replace(graph, buffers=(*graph.buffers, idle)), 16)
