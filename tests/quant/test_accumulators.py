"""A width for the accumulators: the proof holds it, what fits already is left alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from quant.accumulators import limit_accumulators, within_ball
from quant.calibration import Batch
from quant.convert import convert, project
from quant.interpret import run
from quant.lower import lower, run_quantised
from quant.modules import QuantDenoisingNetwork
from quant.precision import Precision
from starlight.models import DenoiserConfig, DenoisingNetwork

CONFIG = DenoiserConfig(width=4, levels=1)


def batch() -> Batch:
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return pixels.float() / 128 - 1, pixels.float() / 128 - 1


def network(seed: int, precision: Precision | None = None) -> QuantDenoisingNetwork:
    torch.manual_seed(seed)
    return convert(DenoisingNetwork(CONFIG).eval(), [batch()], precision)


@given(seed=seeds, bits=st.integers(15, 20))
def test_every_bound_is_within_the_width(seed: int, bits: int) -> None:
    quantised = network(seed)
    if seed % 2:
        quantised = quantised.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    limit_accumulators(quantised, bits)
    project(quantised)
    graph = lower(quantised, "narrow")
    assert max(graph.accumulator_bits(layer) for layer in graph.layers) <= bits
    assert limit_accumulators(quantised, bits) == 0
    image = torch.randint(0, 256, (8, 12, 3)).to(torch.uint8).numpy()
    assert (run_quantised(quantised, image)[0] == run(graph, image)).all()


def test_a_width_that_is_there_changes_nothing() -> None:
    quantised = network(0)
    before = {name: value.clone() for name, value in quantised.state_dict().items()}
    assert limit_accumulators(quantised, 32) == 0
    after = quantised.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    "precision",
    [
        Precision(arithmetic="multiplier"),
        Precision(activation_bits={"*": 16}, weight_bits={"*": 6}),
    ],
)
def test_other_arithmetics(precision: Precision) -> None:
    quantised = network(1, precision)
    widest = lower(quantised, "wide")
    bits = max(widest.accumulator_bits(layer) for layer in widest.layers) - 2
    assert limit_accumulators(quantised, bits) > 0
    graph = lower(quantised, "narrow")
    assert max(graph.accumulator_bits(layer) for layer in graph.layers) <= bits


def test_a_width_without_room_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"layer .*, channel \d+: accumulator must have room"):
        limit_accumulators(network(0), 4)


@given(
    st.lists(st.lists(st.floats(-127, 127), min_size=6, max_size=6), min_size=1, max_size=4),
    st.floats(1, 300),
)
def test_rows_come_to_lie_in_the_ball(rows: list[list[float]], radius: float) -> None:
    values = torch.tensor(rows, dtype=torch.float64)
    radii = torch.full((len(rows),), radius, dtype=torch.float64)
    kept = within_ball(values, radii)
    assert (torch.floor(kept + 0.5).abs().sum(1) <= radii).all()
    assert (kept.abs() <= values.abs()).all()
    assert (kept * values >= 0).all()
    untouched = torch.floor(values + 0.5).abs().sum(1).maximum(values.abs().sum(1)) <= radius
    assert torch.equal(kept[untouched], values[untouched])


def test_projection_is_the_nearest_point_of_the_ball() -> None:
    """By hand: 3 is taken off each of two magnitudes, the third vanishes."""
    rows = torch.tensor([[10.0, -7.0, 2.0]], dtype=torch.float64)
    kept = within_ball(rows, torch.tensor([11.0], dtype=torch.float64))
    assert kept.tolist() == [[7.0, -4.0, 0.0]]
