"""The losses by their definitions."""

import numpy as np
import pytest
import torch

from starlight.training.losses import LEAST_SQUARE, sample_loss


def test_losses_are_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    output, clean = (torch.rand(3, 3, 8, 12, generator=generator) for _ in range(2))
    output[1] = clean[1] + 0.01 * output[1]
    error = (output - clean).double().numpy()
    squares = np.square(error).mean((1, 2, 3))
    wanted = {"l1": np.abs(error).mean(), "l2": squares.mean(), "log": np.log(squares).mean()}
    for kind, value in wanted.items():
        assert sample_loss(kind, output, clean).item() == pytest.approx(value, rel=1e-5)  # type: ignore[arg-type]


def test_a_decibel_counts_alike_whatever_the_noise() -> None:
    """Gradients of the log loss by a scale of each image's error are equal."""
    error = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    error[1] *= 0.01
    scale = torch.ones(2, 1, 1, 1, requires_grad=True)
    sample_loss("log", error * scale, torch.zeros_like(error)).backward()
    assert scale.grad is not None
    assert scale.grad.flatten().tolist() == pytest.approx([1.0, 1.0])


def test_equal_images_have_a_finite_loss() -> None:
    image = torch.ones(1, 3, 4, 4, requires_grad=True)
    loss = sample_loss("log", image, image.detach())
    loss.backward()
    assert loss.item() == pytest.approx(np.log(LEAST_SQUARE))
    assert image.grad is not None
    assert image.grad.isfinite().all()
