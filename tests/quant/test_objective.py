"""The objective: each image counts in dB, and the float network's share is what it says."""

import math

import pytest
import torch
from torch import nn

from quant.objective import Objective
from starlight.models import PRESETS, DenoisingNetwork
from starlight.training.losses import LEAST_SQUARE


class Shifted(nn.Module):
    """Adds a constant."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.shift


CLEAN = torch.zeros(2, 3, 16, 16)


@pytest.fixture(scope="module")
def teacher() -> DenoisingNetwork:
    torch.manual_seed(0)
    return DenoisingNetwork(PRESETS["tiny"]).eval()


def test_log_of_each_image(teacher: DenoisingNetwork) -> None:
    noisy = torch.stack([torch.full((3, 16, 16), 0.01), torch.full((3, 16, 16), 0.5)])
    loss = Objective(teacher, "log")(Shifted(0.0), noisy, CLEAN)
    assert loss.item() == pytest.approx((math.log(1e-4) + math.log(0.25)) / 2, rel=1e-5)


def test_a_decibel_costs_the_same_in_every_image(teacher: DenoisingNetwork) -> None:
    objective = Objective(teacher, "log")
    losses = [
        objective(Shifted(0.0), torch.full((1, 3, 8, 8), level * factor), CLEAN[:1, :, :8, :8])
        for level in (0.01, 0.4)
        for factor in (1.0, 10 ** (1 / 20))
    ]
    assert (losses[1] - losses[0]).item() == pytest.approx(math.log(10) / 10, rel=1e-4)
    assert (losses[3] - losses[2]).item() == pytest.approx(math.log(10) / 10, rel=1e-4)


def test_l1(teacher: DenoisingNetwork) -> None:
    loss = Objective(teacher, "l1")(Shifted(-0.25), CLEAN, CLEAN)
    assert loss.item() == 0.25


def test_share_of_the_float_network(teacher: DenoisingNetwork) -> None:
    noisy = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) / 4
    with torch.no_grad():
        target = teacher(noisy)
        own, followed = ((noisy + 0.1 - goal).square().mean((1, 2, 3)) for goal in (CLEAN, target))
    loss = Objective(teacher, "log", distillation=0.25)(Shifted(0.1), noisy, CLEAN)
    assert loss.item() == pytest.approx((0.75 * own + 0.25 * followed).log().mean().item())
    alone = Objective(teacher, "l1", distillation=1.0)(Shifted(0.1), noisy, CLEAN)
    assert alone.item() == pytest.approx((noisy + 0.1 - target).abs().mean().item())


def test_a_perfect_output_has_a_finite_loss_and_gradient(teacher: DenoisingNetwork) -> None:
    network = Shifted(0.0)
    loss = Objective(teacher, "log")(network, CLEAN, CLEAN)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(LEAST_SQUARE))
    assert network.shift.grad is not None
    assert torch.isfinite(network.shift.grad)
