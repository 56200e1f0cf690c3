"""Stripe plans: near the optimum, proven, refused by name, and the same bits as the whole frame."""

import dataclasses
import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from strategies import EDGE, TINY, graphs, images, random_graph, random_image
from stripe_plans import brute_force, chain, with_sram

from hls_export import memory
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.executors.c_runtime import native
from hls_export.executors.planned_runtime import PlannedRuntime, check_same
from hls_export.group_shape import Options
from hls_export.npu import known_chips, load_chip
from hls_export.plan import Mode, StripePlan, traffic
from hls_export.plan_check import check_stripes
from hls_export.planner import plan_stripes
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array

FRAME = (64, 96)
SMALL = Options(frame=FRAME)


def plan_or_none(graph: IntegerGraph, size: int, options: Options = SMALL) -> StripePlan | None:
    try:
        return plan_stripes(graph, with_sram(size), options)
    except ValueError:
        return None


modes = st.sampled_from(
    [
        SMALL,
        Options(frame=FRAME, keep=False, longest=4),
        Options(frame=FRAME, longest=5),
        Options(frame=(8, 8), rematerialise=False),
    ]
)


@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
@given(
    graphs(max_levels=1, max_width=4),
    images(max_side=40),
    st.sampled_from([600, 1500, 4000, 20000, 200000]),
    modes,
)
@example(random_graph(0, TINY, "edges"), random_image(0, 1, 1), 900, SMALL)
@example(random_graph(1, TINY), random_image(1, 37, 61), 3000, SMALL)
def test_plan_gives_the_bits_of_the_whole_frame(
    graph: IntegerGraph, image: UInt8Array, size: int, options: Options
) -> None:
    """Output and every layer, whatever the plan, at every border."""
    plan = plan_or_none(graph, size, options)
    if plan is None:
        return
    data = pack_bundle(graph, with_sram(size), plan)
    assert read_bundle(data).stripes == plan
    output, trace = interpret.run_traced(graph, image)
    model = native().Model(data)
    sram, _ = model.plan_bytes(image.shape[1], image.shape[0])
    assert sram == plan.sram <= size
    for got, layers, *_ in (model.run_planned(image, trace=True), model.run(image, trace=True)):
        assert np.array_equal(got, output)
        assert all(np.array_equal(layers[name], expected) for name, expected in trace.items())
    assert np.array_equal(model.run_planned(image)[0], output)


@cache
def shipped(name: str) -> tuple[IntegerGraph, bytes]:
    """A network with its plan for a chip that ships, tuned for a full frame."""
    graph, chip = random_graph(5, EDGE), load_chip(name)
    return graph, pack_bundle(graph, chip, plan_stripes(graph, chip))


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.sampled_from(known_chips()), images(max_side=90))
@example("small", random_image(5, 45, 300))  # wider than a band
@example("mid", random_image(6, 1, 1))
@example("large", random_image(7, 64, 128))
@example("reference", random_image(8, 3, 97))
def test_chips_that_ship_give_the_bits_of_the_whole_frame(name: str, image: UInt8Array) -> None:
    """Output and every layer, in every group that it stands in, at any size."""
    graph, data = shipped(name)
    result = PlannedRuntime().run(data, image)
    output, trace = interpret.run_traced(graph, image)
    assert np.array_equal(result.output, output)
    assert all(np.array_equal(result.layers[name], expected) for name, expected in trace.items())


def test_layers_of_several_groups_are_traced_in_each() -> None:
    """And one that differs is refused."""
    graph = random_graph(1)
    plan = plan_stripes(graph, with_sram(3000), SMALL)
    image = random_image(1, 37, 61)
    model = native().Model(pack_bundle(graph, with_sram(3000), plan))
    _, layers, again = model.run_planned(image, trace=True)
    items = [item.layer for group in plan.groups for item in group.items]
    assert plan.rematerialised
    assert {name: len(copies) + 1 for name, copies in again.items()} == {
        name: items.count(name) for name in plan.rematerialised
    }
    check_same(layers, again)
    name = plan.rematerialised[0]
    again[name][0][2, 3, 1] ^= 1
    with pytest.raises(
        ValueError, match=rf"layer {name}: .* at \[y 2, x 3, channel 1\] in group 2"
    ):
        check_same(layers, again)


@pytest.mark.parametrize(
    ("seed", "count", "size"),
    [(0, 3, 300), (1, 4, 600), (2, 5, 400), (3, 5, 1200), (4, 6, 500), (5, 6, 3000), (6, 8, 900)],
)
def test_plan_is_within_5_percent_of_every_plan_there_is(seed: int, count: int, size: int) -> None:
    graph, chip = chain(seed, count), with_sram(size)
    options = Options(frame=(32, 48))
    least = brute_force(graph, chip, options)
    if math.isinf(least):
        with pytest.raises(ValueError, match="SRAM of the smallest tile must be at most"):
            plan_stripes(graph, chip, options)
        return
    plan = plan_stripes(graph, chip, options)
    moved = traffic(graph, plan, chip.capability.channel_block, *options.frame)
    performance = chip.performance
    lanes = performance.input_lanes * performance.output_lanes * performance.pixel_lanes
    price = performance.dram_bytes_per_second / performance.clock_hz / lanes
    assert moved.total + price * (moved.macs - moved.least_macs) <= 1.05 * least


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(0, 12), st.integers(0, 12)),
        min_size=1,
        max_size=9,
    )
)
def test_placed_bytes_are_apart_while_they_live(wanted: list[tuple[int, int, int]]) -> None:
    requests = [memory.Request(16 * size, min(a, b), max(a, b)) for size, a, b in wanted]
    addresses, end = memory.place(requests, 16)
    for one, other in itertools.combinations(range(len(requests)), 2):
        if requests[one].meets(requests[other]):
            low, high = sorted((one, other), key=lambda i: addresses[i])
            assert addresses[low] + requests[low].size <= addresses[high]
    assert end >= max(a + r.size for a, r in zip(addresses, requests, strict=True))


@pytest.mark.parametrize("name", ["small", "mid", "large", "reference"])
def test_sram_of_each_group_is_within_5_percent_of_its_live_bytes(name: str) -> None:
    graph, chip = random_graph(0, EDGE), load_chip(name)
    plan = plan_stripes(graph, chip)
    for group in plan.groups:
        last = len(group.items) - 1
        live = [0] * len(group.items)
        for number, window in enumerate(group.windows):
            users = [
                index
                for index, item in enumerate(group.items)
                if number in (item.input, item.join, item.output)
            ]
            first, final = (0, last) if window.keep else (users[0], users[-1])
            for index in range(first, final + 1):
                live[index] += window.size
        assert max(window.end for window in group.windows) <= 1.05 * max(live)


def test_layer_that_does_not_fit_is_refused_by_name_need_and_limit() -> None:
    with pytest.raises(
        ValueError, match=r"chip reference, layer \S+: SRAM of the smallest tile .* 64 .*, got \d+"
    ):
        plan_stripes(random_graph(0), with_sram(64))


def test_each_breach_of_a_plan_is_refused() -> None:
    graph = random_graph(1)
    plan = plan_stripes(graph, with_sram(3000), SMALL)
    check_stripes(graph, plan, 3000, 8, FRAME)

    def changed(group: int, kind: str, index: int, **fields: object) -> StripePlan:
        parts = list(getattr(plan.groups[group], kind))
        parts[index] = dataclasses.replace(parts[index], **fields)
        replaced: dict[str, Any] = {kind: tuple(parts)}
        new = dataclasses.replace(plan.groups[group], **replaced)
        return dataclasses.replace(
            plan, groups=(*plan.groups[:group], new, *plan.groups[group + 1 :])
        )

    window, item = plan.groups[0].windows[0], plan.groups[0].items[1]
    for broken, message in (
        (changed(0, "windows", 0, rows=window.rows - 1), "must"),
        (changed(0, "windows", 0, columns=window.columns - 1), "must"),
        (changed(0, "windows", 0, address=window.address + 1), "be aligned"),
        (changed(0, "windows", 1, address=window.address), "be apart from"),
        (changed(0, "items", 1, bottom=item.bottom - 1, top=item.top - 1), "lie in its window"),
        (changed(0, "items", 1, left=item.left + 1), "lie in its window"),
        (dataclasses.replace(plan, sram=plan.sram - 16), "must"),
        (dataclasses.replace(plan, groups=plan.groups[1:]), "must"),
        (dataclasses.replace(plan, groups=plan.groups[::-1]), "must"),
    ):
        with pytest.raises(ValueError, match=message):
            check_stripes(graph, broken, 3000, 8, FRAME)
    with pytest.raises(ValueError, match="sram must be at most 100"):
        check_stripes(graph, plan, 100, 8, FRAME)


def test_modes_tell_what_becomes_of_each_tensor() -> None:
    graph = random_graph(1)
    found = {mode for _, _, mode in plan_stripes(graph, with_sram(3000), SMALL).modes()}
    assert {Mode.LINE_BUFFER, Mode.DRAM} <= found
    only = plan_stripes(graph, with_sram(3000), dataclasses.replace(SMALL, keep=False))
    assert Mode.LINE_BUFFER not in {mode for _, _, mode in only.modes()}
