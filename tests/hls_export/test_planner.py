"""Stripe plans: near the optimum, proven, refused by name, and the same bits as the whole frame."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from strategies import EDGE, TINY, graphs, images, random_graph, random_image

from hls_export import memory
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.executors.c_runtime import native
from hls_export.executors.planned_runtime import PlannedRuntime
from hls_export.group_shape import Options, Problem, Shape
from hls_export.npu import Chip, load_chip
from hls_export.plan import Mode, StripePlan, traffic
from hls_export.plan_check import check_stripes
from hls_export.planner import plan_stripes
from quant import contract, interpret
from quant.contract import Op
from quant.integer_graph import IMAGE, Buffer, IntegerGraph, Layer, View
from quant.intmath import UInt8Array

FRAME = (64, 96)
SMALL = Options(frame=FRAME)


def with_sram(size: int) -> Chip:
    """The reference chip with other SRAM."""
    chip = load_chip("reference")
    performance = chip.performance.model_copy(update={"sram_bytes": size})
    return chip.model_copy(update={"performance": performance})


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
    for got, layers in (model.run_planned(image, trace=True), model.run(image, trace=True)):
        assert np.array_equal(got, output)
        assert all(np.array_equal(layers[name], expected) for name, expected in trace.items())
    assert np.array_equal(model.run_planned(image)[0], output)


@pytest.mark.parametrize("name", ["small", "mid", "large", "reference"])
def test_chips_that_ship_run_a_network_by_its_plan(name: str) -> None:
    graph, chip = random_graph(5, EDGE), load_chip(name)
    data = pack_bundle(graph, chip, plan_stripes(graph, chip))
    image = random_image(5, 45, 70)
    result = PlannedRuntime().run(data, image)
    assert np.array_equal(result.output, interpret.run(graph, image))


def chain(seed: int, count: int) -> IntegerGraph:
    """A random graph of `count` layers: 3x3, 1x1, one pair of stride 2 and UP, joins over skips."""
    rng = np.random.default_rng([seed, count])
    buffers = [Buffer(IMAGE, 3, 0, contract.IMAGE_EXPONENT)]
    layers: list[Layer] = []
    source = View(IMAGE, 0, 3)
    down = int(rng.integers(1, max(2, count - 3))) if count >= 4 else None
    up = int(rng.integers(down + 1, count - 1)) if down is not None else None

    def numbers(*shape: int) -> dict[str, np.ndarray]:
        return {
            "weight": np.ones(shape, np.int8),
            "weight_exponent": np.full(shape[0], 7),
            "bias": np.zeros(shape[0], np.int64),
        }

    level = 0
    for index in range(count - 1):
        op = Op.CONV3X3 if rng.random() < 0.6 else Op.CONV1X1
        if index == down:
            op = Op.CONV3X3_STRIDE2
        elif index == up:
            op = Op.UP
        level += {Op.CONV3X3_STRIDE2: 1, Op.UP: -1}.get(op, 0)
        channels = int(rng.integers(2, 9))
        mates = [b for b in buffers[1:] if b.level == level]
        join = None
        if mates and rng.random() < 0.5:
            mate = mates[int(rng.integers(len(mates)))]
            join, channels = View(mate.name, 0, mate.channels), mate.channels
        buffers.append(Buffer(f"b{index}", channels, level, 7))
        out = View(f"b{index}", 0, channels)
        spread = 4 if op is Op.UP else 1
        shape = (channels * spread, source.channels, op.kernel, op.kernel)
        layers.append(Layer(f"l{index}", op, source, out, join, False, **numbers(*shape)))
        source = out
    layers.append(
        Layer("tail", Op.TAIL, source, None, None, False, **numbers(3, source.channels, 3, 3))
    )
    return IntegerGraph(f"chain-{seed}", 1, tuple(buffers), tuple(layers))


def brute_force(graph: IntegerGraph, chip: Chip, options: Options) -> float:
    """Least cost over all cuts, all sets of line buffers, all tiles and both ways with `head`."""
    heads = frozenset(
        layer.name for layer in graph.layers[:-1] if layer.input.buffer == IMAGE and not layer.join
    )
    best = math.inf
    for again in {frozenset[str](), heads}:
        problem = Problem(graph, chip, options, again)
        count = len(graph.layers)
        cost: dict[tuple[int, int], float] = {}
        for start, end in itertools.combinations(range(count + 1), 2):
            drafts = problem.drafts(start, end)
            if problem.made_elsewhere(drafts):
                continue
            names = sorted({d.view.buffer for d in drafts if d.view is not None})
            for size in range(len(names) + 1):
                for keep in itertools.combinations(names, size):
                    shape = Shape(problem, drafts, frozenset(keep))
                    rows, columns = problem.tiles(shape.depth)
                    live = shape.live(rows, columns)
                    fits = live <= problem.limit
                    if fits.any():
                        least = float(shape.cost(rows, columns, live)[fits].min())
                        cost[start, end] = min(cost.get((start, end), math.inf), least)
        reach = [0.0] + [math.inf] * count
        for end in range(1, count + 1):
            reach[end] = min(
                reach[start] + cost.get((start, end), math.inf) for start in range(end)
            )
        best = min(best, reach[count])
    return best


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
