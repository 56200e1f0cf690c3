"""The network: shapes, Choices, cost, receptive radius."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starlight.models import PRESETS, DenoiserConfig, DenoisingNetwork
from starlight.models.cost import macs_per_pixel, parameter_count, receptive_radius
from starlight.models.padding import crop, pad_to_grid

CHOICES = [
    {},
    {"skip": "module"},
    {"skip": "literal"},
    {"upsampling": "nearest"},
    {"upsampling": "transposed"},
    {"growth": "full"},
    {"growth": "full", "residual": "literal"},
    {"widening": "constant"},
    {"subtraction": False},
]


def small(**choices: object) -> DenoiserConfig:
    return DenoiserConfig(**{"width": 4, "levels": 2, **choices})  # type: ignore[arg-type]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_every_choice_keeps_the_shape_and_trains_every_parameter(choices: dict[str, str]) -> None:
    torch.manual_seed(0)
    network = DenoisingNetwork(small(**choices))
    image = torch.randn(2, 3, 24, 12)
    output = network(image)
    assert output.shape == image.shape
    output.square().mean().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("choices", [c for c in CHOICES if c.get("skip")], ids=str)
def test_skips_differ(choices: dict[str, str]) -> None:
    torch.manual_seed(0)
    first = DenoisingNetwork(small())
    second = DenoisingNetwork(small(**choices))
    second.load_state_dict(first.state_dict())
    image = torch.randn(1, 3, 16, 16)
    assert not torch.equal(first(image), second(image))


def test_global_subtraction_makes_zero_weights_the_identity() -> None:
    network = DenoisingNetwork(small())
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(network(image), image)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 16, 16), "N, 3, H, W"),
        ((1, 1, 16, 16), "N, 3, H, W"),
        ((1, 3, 16, 18), "multiples of 4"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenoisingNetwork(small())(torch.zeros(shape))


def test_published_figures() -> None:
    """Parameters and MACs per pixel of the presets as docs/MODEL.md states them."""
    assert parameter_count(PRESETS["paper"]) == 441_214_211
    assert parameter_count(PRESETS["edge"]) == 3_053_267
    assert macs_per_pixel(PRESETS["edge"]) == 62_240
    constant = DenoiserConfig(width=128, growth="full", widening="constant")
    assert parameter_count(constant) == 9_566_211
    assert receptive_radius(PRESETS["edge"]) == 171


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_receptive_radius_is_the_reach_of_the_gradient(choices: dict[str, str]) -> None:
    config = small(**choices)
    torch.manual_seed(0)
    network = DenoisingNetwork(config).double()
    radius, grid = receptive_radius(config), config.grid
    size = 2 * (radius // grid + 2) * grid
    reached = 0
    for pixel in range(size // 2, size // 2 + grid):
        image = torch.randn(1, 3, 8, size, dtype=torch.float64, requires_grad=True)
        network(image)[0, :, 4, pixel].sum().backward()
        assert image.grad is not None
        columns = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        reached = max(reached, pixel - int(columns[0]), int(columns[-1]) - pixel)
    assert reached == radius


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 4, 16]), st.integers(0, 2**32 - 1))
def test_padding_replicates_and_crops_back(height: int, width: int, grid: int, seed: int) -> None:
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    padded = pad_to_grid(image, grid)
    assert padded.shape[2] % grid == padded.shape[3] % grid == 0
    assert padded.shape[2] - height < grid
    assert padded.shape[3] - width < grid
    assert torch.equal(crop(padded, height, width), image)
    rows = torch.arange(padded.shape[2]).clamp(max=height - 1)
    columns = torch.arange(padded.shape[3]).clamp(max=width - 1)
    assert torch.equal(padded, image[:, :, rows][..., columns])


def test_padding_refuses_an_empty_image() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pad_to_grid(torch.zeros(1, 3, 0, 4), 4)
