"""The networks: layers, channels and resolutions of the full form; losses on ordered pairs."""

import re

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from starlight.noise.gan.config import GanConfig
from starlight.noise.gan.networks import (
    Answers,
    Discriminator,
    Generator,
    discriminator_loss,
    generator_loss,
)

TINY = GanConfig(width=8, crop=32)

Layer = tuple[int, int, int]  # planes in, planes out, side of the output


def convolutions(network: nn.Module, *inputs: Tensor) -> list[Layer]:
    """Every convolution in the order in which a forward pass reaches it."""
    layers: list[Layer] = []

    def seen(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        assert (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
        layers.append((module.in_channels, module.out_channels, output.shape[-1]))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(seen)
    with torch.inference_mode():
        network(*inputs)
    return layers


def stage(planes: int, width: int, count: int, side: int) -> list[Layer]:
    return [(planes if i == 0 else width, width, side) for i in range(count)]


ENCODER = [
    *stage(12, 64, 3, 256),
    *stage(64, 128, 3, 128),
    *stage(128, 256, 3, 64),
    *stage(256, 512, 2, 32),
    *stage(512, 64, 1, 16),
]


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """Shapes of the full networks, without their arithmetic."""
    return torch.empty(1, 6, 256, 256, device="meta"), torch.empty(1, 3, 256, 256, device="meta")


def test_full_generator_has_the_stated_layers(images: tuple[Tensor, Tensor]) -> None:
    condition, noise = images
    with torch.device("meta"):
        network = Generator(GanConfig()).eval()
    assert convolutions(network, condition[:, :5], noise) == [
        *stage(8, 64, 3, 256),
        *stage(64, 128, 3, 128),
        *stage(128, 256, 8, 64),
        (256, 128, 128),  # up
        *stage(128, 128, 3, 128),
        (128, 64, 256),  # up
        *stage(64, 64, 3, 256),
        (64, 3, 256),
    ]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 20
    assert sum(isinstance(m, nn.ReLU) for m in network.modules()) == 20


def test_full_encoder_discriminator_has_the_stated_layers(images: tuple[Tensor, Tensor]) -> None:
    condition, image = images
    with torch.device("meta"):
        network = Discriminator(GanConfig())
    assert convolutions(network, condition, image, image) == ENCODER
    assert network.score.in_features == 64 * 16 * 16
    assert network.score.out_features == 1
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_full_unet_discriminator_mirrors_the_encoder(images: tuple[Tensor, Tensor]) -> None:
    condition, image = images
    with torch.device("meta"):
        network = Discriminator(GanConfig(discriminator="unet"))
    assert convolutions(network, condition, image, image) == [
        *ENCODER,
        (64, 512, 32),
        *stage(512, 512, 2, 32),
        (512, 256, 64),
        *stage(256, 256, 3, 64),
        (256, 128, 128),
        *stage(128, 128, 3, 128),
        (128, 64, 256),
        *stage(64, 64, 3, 256),
        (64, 1, 256),
    ]


@pytest.mark.parametrize("form", ["encoder", "unet"])
def test_convolutions_of_the_discriminator_are_held_to_the_bound(form: str) -> None:
    torch.manual_seed(0)
    network = Discriminator(TINY.model_copy(update={"discriminator": form}))
    inputs = torch.randn(2, 6, 32, 32), torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    for _ in range(30):  # power iterations
        network(*inputs)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name != "score":
            value = torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
            assert value == pytest.approx(1.0, abs=0.05), name


@pytest.mark.parametrize("form", ["encoder", "unet"])
def test_scores_of_both_orders_add_up_to_one(form: str) -> None:
    torch.manual_seed(0)
    network = Discriminator(TINY.model_copy(update={"discriminator": form}))
    network.eval()
    condition, a, b = torch.randn(2, 6, 32, 32), *torch.randn(2, 2, 3, 32, 32)
    first, second, logits = network(condition, a, b)
    torch.testing.assert_close(logits.sigmoid().flatten(1).mean(1), first)
    assert first.shape == (2,)
    assert ((first > 0) & (first < 1)).all()
    assert torch.equal(second, 1 - first)
    torch.testing.assert_close(network(condition, b, a)[:2], (second, first))
    assert torch.equal(network(condition, a, a)[0], torch.full((2,), 0.5))


def test_order_of_the_pair_and_condition_reach_the_score() -> None:
    torch.manual_seed(0)
    network = Discriminator(TINY).eval()
    condition, a, b = torch.randn(2, 6, 32, 32), *torch.randn(2, 2, 3, 32, 32)
    score = network(condition, a, b).real_first
    assert not torch.equal(score, network(condition, b, a)[0])
    for plane in range(6):
        changed = condition.clone()
        changed[:, plane] += 5.0
        assert not torch.equal(score, network(changed, a, b)[0]), plane


def test_first_residuals_are_the_normal_noise() -> None:
    condition, noise = torch.randn(2, 5, 16, 16), torch.randn(2, 3, 16, 16)
    assert torch.equal(Generator(TINY)(condition, noise), noise)


def test_generator_takes_any_size_on_its_grid_and_reaches_64_pixels_at_most() -> None:
    torch.manual_seed(0)
    network = Generator(TINY).eval()
    nn.init.normal_(network.last.weight)
    condition = torch.randn(1, 5, 8, 140)
    noise = torch.randn(1, 3, 8, 140, requires_grad=True)
    assert network(condition, noise).shape == (1, 3, 8, 140)
    network(condition, noise)[0, :, :, 68].sum().backward()
    reached = noise.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]
    assert reached.min() >= 68 - 64
    assert reached.max() <= 68 + 64
    assert reached.min() < 68 - 40


@pytest.mark.parametrize("shape", [(1, 5, 6, 8), (1, 4, 8, 8), (5, 8, 8), (1, 5, 0, 8)])
def test_generator_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    wanted = re.escape("condition must have shape [N, 5, H, W] with H and W multiples of 4")
    with pytest.raises(ValueError, match=wanted):
        Generator(TINY)(torch.zeros(shape), torch.zeros(1, 3, 8, 8))


def test_encoder_discriminator_belongs_to_its_crop_and_unet_does_not() -> None:
    big = torch.zeros(1, 6, 48, 48), torch.zeros(1, 3, 48, 48), torch.zeros(1, 3, 48, 48)
    with pytest.raises(ValueError, match="images must be 32 x 32, the crop"):
        Discriminator(TINY)(*big)
    free = Discriminator(TINY.model_copy(update={"discriminator": "unet"}))
    assert free(*big)[0].shape == (1,)


def test_losses_are_least_squares_on_ordered_pairs() -> None:
    said = Answers(torch.tensor([0.75, 0.5]), torch.tensor([0.25, 0.0]), torch.empty(2, 1))
    d = (0.0625 + 0.25) / 2 + (0.0625 + 0.0) / 2
    g = (0.5625 + 0.25) / 2 + (0.5625 + 1.0) / 2
    assert discriminator_loss(said).item() == d
    assert generator_loss(said).item() == g
    half = torch.full((3,), 0.5)
    undecided = Answers(half, half, torch.zeros(3, 1))
    assert generator_loss(undecided) == discriminator_loss(undecided) == 0.5


@pytest.mark.parametrize("wrong", [{"crop": 40}, {"width": 0}, {"depth": 3}])
def test_config_refuses_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        GanConfig(**wrong)
