"""Calibration picks the exponents of least error; projection keeps the contract."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from quant.calibration import Batch
from quant.convert import (
    best_weight_exponent,
    buffer_exponents,
    convert,
    frozen,
    project,
)
from quant.lower import lower
from quant.modules import QuantDenoisingNetwork, weight_scale
from quant.quantizers import RoundHalfUp
from starlight.models import PRESETS, DenoiserConfig, DenoisingNetwork

CONFIG = DenoiserConfig(width=4, levels=2)


def batches(count: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    pixels = (
        torch.randint(0, 256, (2, 2, 3, 16, 16), generator=generator).float() / 128 - 1
        for _ in range(count)
    )
    return [(noisy, clean) for noisy, clean in pixels]


def test_rounding_sends_ties_up() -> None:
    values = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5, -0.500001], dtype=torch.float64)
    assert RoundHalfUp()(values).tolist() == [-1, 0, 1, 2, 3, -1]


@given(seeds, st.floats(-9, 3))
def test_weight_exponent_is_the_best_of_all(seed: int, magnitude: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64) * 2**magnitude
    chosen = best_weight_exponent(weight)
    for channel in range(3):
        errors = {}
        for exponent in range(16):
            scaled = weight[channel].numpy() * 2.0**exponent
            rounded = np.clip(np.floor(scaled + 0.5), -127, 127)
            errors[exponent] = (((rounded - scaled) * 2.0**-exponent) ** 2).sum()
        assert errors[int(chosen[channel])] == min(errors.values())


def test_conversion_keeps_the_function_within_quantisation() -> None:
    torch.manual_seed(0)
    network = DenoisingNetwork(CONFIG).eval()
    quantised = convert(network, batches())
    assert not quantised.training
    image, _ = batches()[0]
    with torch.no_grad():
        change = (quantised(image) - image).square().mean()
        error = (quantised(image) - network(image)).square().mean()
        assert error < 0.1 * change
        with quantised.observing(lambda name, values: None):
            weights_only = (quantised.train()(image) - network(image)).square().mean()
    assert weights_only < error


def test_observing_ends_even_after_an_error() -> None:
    quantised = QuantDenoisingNetwork(CONFIG)
    with pytest.raises(RuntimeError, match="stop"), quantised.observing(lambda n, v: None):
        raise RuntimeError("stop")
    assert all(quantiser.observer is None for _, quantiser in quantised.quantisers())


@given(seeds)
def test_projection_makes_any_exponents_lowerable_or_lowering_names_the_layer(seed: int) -> None:
    torch.manual_seed(seed)
    network = QuantDenoisingNetwork(CONFIG)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("exponent"):
                parameter.uniform_(-30, 30) if seed % 2 else parameter.uniform_(1, 9)
    project(network)
    exponents = buffer_exponents(network)
    assert all(-4 <= exponent <= 12 for exponent in exponents.values())
    again = [p.clone() for p in network.parameters()]
    project(network)
    assert all(
        torch.equal(one, other) for one, other in zip(again, network.parameters(), strict=True)
    )
    try:
        lower(network, "projected")
    except ValueError as error:
        assert "layer " in str(error)  # noqa: PT017 - e_x and e_y too far apart for any e_w
        assert max(exponents.values()) - min(exponents.values()) > 8


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    quantised = convert(DenoisingNetwork(CONFIG), batches()).train()
    quantised(batches()[1][0]).square().mean().backward()
    dead = [name for name, p in quantised.named_parameters() if p.grad is None]
    assert dead == []
    exponents = [p.grad for name, p in quantised.named_parameters() if name.endswith("exponent")]
    assert sum(bool(gradient.any()) for gradient in exponents) > 0.9 * len(exponents)


def test_frozen_is_a_float64_copy_with_whole_exponents() -> None:
    quantised = QuantDenoisingNetwork(CONFIG)
    scale = weight_scale(quantised.head)
    with torch.no_grad():
        scale.exponent.fill_(6.4)
    copied = frozen(quantised)
    assert {p.dtype for p in copied.parameters()} == {torch.float64}
    assert weight_scale(copied.head).exponent.unique().tolist() == [6.0]
    assert scale.exponent.unique().tolist() == [torch.tensor(6.4).item()]


def test_state_dict_survives_a_round_trip() -> None:
    torch.manual_seed(0)
    first = convert(DenoisingNetwork(PRESETS["tiny"]), batches())
    second = QuantDenoisingNetwork(PRESETS["tiny"])
    second.load_state_dict(first.state_dict())
    for one, other in zip(lower(first, "a").layers, lower(second, "a").layers, strict=True):
        assert np.array_equal(one.weight, other.weight)
        assert np.array_equal(one.bias, other.bias)
        assert np.array_equal(one.weight_exponent, other.weight_exponent)
