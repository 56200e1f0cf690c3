"""Allocation: within the budget, upward step by step, until nothing more fits."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY

from quant.allocation import Losses, Place, allocate, as_precision, mac_bits
from quant.topology import layer_shapes

SHAPES = list(layer_shapes(TINY))
MACS = {shape.name: 100 + 10 * index for index, shape in enumerate(SHAPES)}
EIGHT: dict[Place, int] = {
    **{("activations", shape.output.buffer): 8 for shape in SHAPES if shape.output},
    **{("weights", shape.name): 8 for shape in SHAPES},
}


def cost(shape, bits):  # type: ignore[no-untyped-def]
    return mac_bits(shape, {**EIGHT, **bits}, MACS)


WHOLE = sum(cost(shape, EIGHT) for shape in SHAPES)
PLACES: list[Place] = [
    ("activations", "encoder.0.dense"),
    ("activations", "second"),
    ("weights", "second"),
    ("weights", "middle.dense.conv2"),
]
falling = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(
    lambda steps: [sum(steps), sum(steps[1:]), steps[2], 0.0]
)


def losses(curves: list[list[float]]) -> Losses:
    return {
        place: dict(
            zip((8, 16) if place[0] == "activations" else (4, 5, 6, 8), curve, strict=False)
        )
        for place, curve in zip(PLACES, curves, strict=True)
    }


@given(st.lists(falling, min_size=4, max_size=4), st.floats(0.95, 1.3))
def test_path_climbs_within_the_budget(curves: list[list[float]], budget: float) -> None:
    table = losses(curves)
    path = allocate(TINY, table, cost, budget * WHOLE)
    assert all(point.cost <= budget * WHOLE for point in path)
    for one, other in itertools.pairwise(path):
        assert other.loss < one.loss
        assert other.cost >= one.cost
    last = path[-1]
    assert last.cost == pytest.approx(sum(cost(shape, last.bits) for shape in SHAPES))
    assert last.loss == pytest.approx(sum(table[place][last.bits[place]] for place in table))
    for place, widths in table.items():  # nothing more would have fitted
        for wider in (width for width in widths if width > last.bits[place]):
            tried = {**last.bits, place: wider}
            fits = sum(cost(shape, tried) for shape in SHAPES) <= budget * WHOLE * (1 - 1e-12)
            assert not fits or widths[wider] >= widths[last.bits[place]]


@given(st.lists(falling, min_size=4, max_size=4))
def test_without_a_limit_everything_gets_its_most_bits(curves: list[list[float]]) -> None:
    last = allocate(TINY, losses(curves), cost, 10 * WHOLE)[-1]
    assert last.loss == pytest.approx(
        sum(min(widths.values()) for widths in losses(curves).values())
    )


def test_a_layer_and_a_buffer_of_one_name_are_two_places() -> None:
    table: Losses = {
        ("activations", "second"): {8: 0.5, 16: 0.0},
        ("weights", "second"): {4: 0.25, 8: 0.0},
    }
    path = allocate(TINY, table, cost, 10 * WHOLE)
    assert path[0].bits == {("activations", "second"): 8, ("weights", "second"): 4}
    assert path[-1].bits == {("activations", "second"): 16, ("weights", "second"): 8}
    precision = as_precision({("activations", "second"): 16, ("weights", "second"): 4})
    assert precision.activation_bits == {"second": 16}
    assert precision.weight_bits == {"second": 4}
    assert as_precision(EIGHT).model_dump()["weight_bits"] == {}


def test_a_budget_below_the_least_bits_is_refused() -> None:
    table: Losses = {("weights", "head"): {4: 0.1, 8: 0.0}}
    with pytest.raises(ValueError, match=r"allocation: budget must be at least .*, got 1$"):
        allocate(TINY, table, cost, 1.0)


def test_mac_bits_counts_what_a_layer_reads_and_its_weights() -> None:
    head = SHAPES[0]
    assert mac_bits(head, EIGHT, MACS) == MACS["head"]  # the image has 8 bits
    tail = SHAPES[-1]
    wide: dict[Place, int] = {("activations", "second"): 16, ("weights", "tail"): 4}
    assert mac_bits(tail, {**EIGHT, **wide}, MACS) == MACS["tail"]
