"""The quantised model in float64 is the integer graph, to the last bit of every layer."""

import numpy as np
import pytest
import torch
from graph_equality import assert_same_graph
from hypothesis import given
from hypothesis import strategies as st
from strategies import STYLES, images, random_graph, random_image, seeds

from quant.convert import convert
from quant.integer_graph import IMAGE, IntegerGraph
from quant.interpret import run_traced
from quant.lower import lower, run_quantised
from quant.modules import QuantDenoisingNetwork, weight_scale
from quant.topology import Topology
from starlight.evaluation.photographs import evaluation_photographs
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import load_network
from starlight.noise import NoiseCondition

configs = st.builds(
    DenoiserConfig,
    width=st.sampled_from([2, 4, 6]),
    levels=st.integers(1, 3),
    widening=st.sampled_from(["doubling", "constant"]),
    growth=st.sampled_from(["full", "half"]),
)


@torch.no_grad()
def raised(graph: IntegerGraph, config: DenoiserConfig) -> QuantDenoisingNetwork:
    """The quantised model that lowers to `graph`, in float64."""
    network = QuantDenoisingNetwork(config).double()
    for name, quantiser in network.quantisers():
        quantiser.scale.exponent.fill_(graph.buffer(name).exponent)
    for layer in graph.layers:
        conv = network.convolution(layer.name)
        exponent = torch.from_numpy(layer.weight_exponent).double()
        scale = torch.exp2(-exponent).view(-1, 1, 1, 1)
        conv.weight.copy_(torch.from_numpy(layer.weight).double() * scale)
        weight_scale(conv).exponent.copy_(exponent.view_as(scale))
        accumulator = torch.from_numpy(graph.accumulator_exponent(layer)).double()
        assert conv.bias is not None
        conv.bias.copy_(torch.from_numpy(layer.bias).double() * torch.exp2(-accumulator))
    return network


def assert_bits_equal(
    network: QuantDenoisingNetwork, graph: IntegerGraph, image: np.ndarray
) -> None:
    expected, layers = run_traced(graph, image)
    output, traced = run_quantised(network, image)
    assert list(traced) == list(layers)
    for name, values in layers.items():
        assert traced[name].dtype == values.dtype
        assert np.array_equal(traced[name], values), name
    assert np.array_equal(output, expected)


@given(configs, st.sampled_from(STYLES), seeds, images(max_side=19))
def test_model_equals_graph_at_the_edges(
    config: DenoiserConfig, style: str, seed: int, image: np.ndarray
) -> None:
    topology = Topology(config.widths, config.growths)
    graph = random_graph(seed, topology, style)  # type: ignore[arg-type]
    network = raised(graph, config)
    assert_same_graph(lower(network, graph.name), graph)
    assert_bits_equal(network, graph, image)


def test_trained_float32_model_equals_its_graph() -> None:
    """Numbers as training leaves them: float32 weights off the grid, exponents in between."""
    torch.manual_seed(0)
    network = QuantDenoisingNetwork(DenoiserConfig(width=4, levels=2))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("exponent"):
                parameter.copy_(5 + torch.randn_like(parameter) * 0.4)
            else:
                parameter.mul_(1.7)
    assert_bits_equal(network, lower(network, "off-grid"), random_image(3, 21, 34))


def test_edge_on_a_photograph_of_odd_size_with_camera_noise() -> None:
    network = load_network("edge")
    photograph = evaluation_photographs()["chelsea"]
    assert photograph.shape == (300, 451, 3)
    noisy = NoiseCondition.parse("iso_6400").apply(photograph, seed=0, output="u8_clipped")
    patches = torch.from_numpy(noisy[:128, :128].copy()).permute(2, 0, 1)[None]
    images = (patches.float() - 128) / 128
    quantised = convert(network, [(images, images.flip(0))])
    assert_bits_equal(quantised, lower(quantised, "edge"), noisy)


def test_a_bias_that_does_not_fit_is_refused_not_clamped() -> None:
    network = QuantDenoisingNetwork(DenoiserConfig(width=2, levels=1))
    conv = network.convolution("middle.dense.conv2")
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias[0] = 2.0**31
    with pytest.raises(ValueError, match=r"layer middle\.dense\.conv2, channel 0: bias must fit"):
        lower(network, "too-large")
    with torch.no_grad():
        conv.bias[0] = float("nan")
    with pytest.raises(ValueError, match="channel 0: bias must fit"):
        lower(network, "nan")


def test_an_exponent_out_of_step_is_refused_by_layer_and_channel() -> None:
    network = QuantDenoisingNetwork(DenoiserConfig(width=2, levels=1))
    exponents = dict(network.quantisers())
    with torch.no_grad():
        exponents["encoder.0.dense"].scale.exponent.fill_(-4)
        exponents["encoder.0.out"].scale.exponent.fill_(12)
    with pytest.raises(ValueError, match=r"layer encoder\.0\.dense\.fuse, channel 0: requanti"):
        lower(network, "left-shift")


@pytest.mark.parametrize(
    "choices",
    [
        {"skip": "module"},
        {"skip": "literal"},
        {"residual": "literal", "growth": "full"},
        {"upsampling": "nearest"},
        {"upsampling": "transposed"},
        {"subtraction": False},
    ],
    ids=str,
)
def test_choices_without_integer_form_are_refused_by_name(choices: dict[str, object]) -> None:
    config = DenoiserConfig(width=4, levels=2, **choices)  # type: ignore[arg-type]
    name = next(iter(choices))
    with pytest.raises(ValueError, match=rf"integer form, got {name}={choices[name]}"):
        convert(DenoisingNetwork(config), [(torch.zeros(1, 3, 8, 8),) * 2])


def test_training_output_is_the_unrounded_residual() -> None:
    network = raised(random_graph(1, Topology((4, 8), (2, 4))), DenoiserConfig(width=4, levels=1))
    image = (torch.from_numpy(random_image(0, 8, 8)).permute(2, 0, 1)[None].double() - 128) / 128
    soft = network.train()(image)
    hard = network.eval()(image)
    assert not torch.equal(soft, hard)
    assert torch.equal(
        torch.clamp(image + torch.ceil((soft - image) * 128 - 0.5) / 128, -1, 127 / 128), hard
    )


def test_image_buffer_is_no_parameter() -> None:
    network = QuantDenoisingNetwork(DenoiserConfig(width=2, levels=1))
    assert IMAGE not in dict(network.quantisers())
