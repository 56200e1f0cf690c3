"""Denoiser: any size, tiles without seams, dtypes and ranges kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_image

import starlight
from starlight.denoise.denoiser import Denoiser
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights


def network(levels: int = 2, dtype: torch.dtype = torch.float32) -> DenoisingNetwork:
    """A small network whose every path weighs as much as in a trained one."""
    torch.manual_seed(levels)
    net = DenoisingNetwork(DenoiserConfig(width=4, levels=levels))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
            elif "fuse" in name or "tail" in name:
                parameter.mul_(5.0)
    return net.to(dtype)


def identity() -> DenoisingNetwork:
    """A network whose tail is zero: output = input - 0."""
    net = network(levels=1)
    torch.nn.init.zeros_(net.tail.weight)
    assert net.tail.bias is not None
    torch.nn.init.zeros_(net.tail.bias)
    return net


@settings(max_examples=25)
@given(st.integers(1, 2), st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_tiles_leave_no_seam(levels: int, height: int, width: int, tile: int) -> None:
    """In float64 only the order of additions may differ (largest difference seen: 1.1e-15)."""
    net = network(levels, torch.float64)
    image = random_image(0, height, width) / 255.0
    untiled = Denoiser(net, tile=10**6).denoise(image)
    assert np.ptp(untiled - image) > 1e-3 or image.size < 100  # the network does something
    np.testing.assert_allclose(Denoiser(net, tile=tile).denoise(image), untiled, rtol=0, atol=4e-15)


def test_tiles_leave_no_seam_in_float32() -> None:
    """Largest difference seen over sizes and tiles: 1.4e-6, or 4e-4 of a grey level."""
    net = network(2)
    image = (random_image(1, 150, 130) / 255.0).astype(np.float32)
    untiled = Denoiser(net, tile=10**6).denoise(image)
    tiled = Denoiser(net, tile=32).denoise(image)
    np.testing.assert_allclose(tiled, untiled, rtol=0, atol=4e-6)


def test_a_halo_that_is_too_small_shows() -> None:
    denoiser = Denoiser(network(2, torch.float64), tile=16)
    image = random_image(2, 96, 96) / 255.0
    whole = denoiser.denoise(image)
    denoiser.machine = replace(denoiser.machine, halo=denoiser.grid)
    assert np.abs(denoiser.denoise(image) - whole).max() > 1e-6


def test_large_images_are_tiled_within_the_budget() -> None:
    net = network(1, torch.float64)
    image = random_image(3, 301, 170) / 255.0
    whole = Denoiser(net).denoise(image)
    sizes: list[int] = []
    handle = net.register_forward_pre_hook(
        lambda _, inputs: sizes.append(inputs[0].shape[2] * inputs[0].shape[3])
    )
    budget = 90 * 90
    denoiser = Denoiser(net)
    machine = denoiser.machine
    denoiser.machine = replace(machine, pixel_bytes=(1280e6 - machine.fixed_bytes) / budget)
    tiled = denoiser.denoise(image)
    handle.remove()
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=4e-15)
    assert len(sizes) > 1
    assert max(sizes) <= budget


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (5, 3), (16, 16)])
def test_bytes_pass_through_an_identity_unchanged(shape: tuple[int, int]) -> None:
    image = random_image(4, *shape)
    result = Denoiser(identity()).denoise(image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_dtype_and_range(dtype: Any) -> None:
    image = np.linspace(-0.5, 1.5, 6 * 7 * 3).reshape(6, 7, 3).astype(dtype)
    result = Denoiser(identity()).denoise(image)
    assert result.dtype == dtype
    # float32 inside: half a unit at the largest |pixel - 128| / 128, here 2, in units of 255.
    np.testing.assert_allclose(result, image, rtol=0, atol=1.3e-7)


def test_bytes_equal_floats_rounded_by_floor_of_x_plus_one_half() -> None:
    net, image = network(2), random_image(5, 40, 30)
    exact = Denoiser(net.double()).denoise(image / 255.0) * 255.0
    wanted = np.clip(np.floor(exact + 0.5), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(Denoiser(net).denoise(image), wanted)


def test_a_batch_equals_its_images_and_input_layout_does_not_matter() -> None:
    denoiser = Denoiser(network(1))
    batch = np.stack([random_image(seed, 11, 13) for seed in range(3)])
    result = denoiser.denoise(batch)
    for image, denoised in zip(batch, result, strict=True):
        np.testing.assert_array_equal(denoiser.denoise(image), denoised)
    flipped = batch[0, ::-1, ::-1]
    np.testing.assert_array_equal(denoiser.denoise(flipped), denoiser.denoise(flipped.copy()))
    assert denoiser.denoise(batch[:0]).shape == (0, 11, 13, 3)


@pytest.mark.parametrize(
    ("image", "error", "rule"),
    [
        (np.zeros((4, 4), np.uint8), ValueError, r"no grey or alpha\), got \[4, 4\]"),
        (np.zeros((4, 4, 1), np.uint8), ValueError, r"got \[4, 4, 1\]"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"got \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"H, W >= 1 .*got \[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint32), TypeError, "got uint32"),
        (np.zeros((4, 4, 3), bool), TypeError, "got bool"),
        (np.zeros((4, 4, 3), np.complex64), TypeError, "got complex64"),
        (np.full((4, 4, 3), np.nan), ValueError, "must be finite, got NaN or infinity"),
        (np.full((4, 4, 3), -np.inf, np.float32), ValueError, "must be finite"),
        ([[[0, 0, 0]]], TypeError, "must be a numpy array or torch tensor, got list"),
    ],
)
def test_other_images_are_refused(image: Any, error: type[Exception], rule: str) -> None:
    with pytest.raises(error, match=rule):
        Denoiser(identity()).denoise(image)


@pytest.mark.parametrize("name", ["tile", "threads"])
def test_other_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"denoiser: {name} must be at least 1, got 0"):
        Denoiser(identity(), **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"denoiser: {name} must be an integer, got float"):
        Denoiser(identity(), **{name: 1.5})  # type: ignore[arg-type]


def test_threads_are_set_for_the_call_alone() -> None:
    net, seen = identity(), []
    net.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    Denoiser(net, threads=before + 1).denoise(random_image(0, 4, 4))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_the_package_offers_denoiser_and_reads_weights(tmp_path: Path) -> None:
    assert starlight.Denoiser is Denoiser
    net = network(1)
    save_weights(net, tmp_path / "net.safetensors")
    image = random_image(6, 20, 20)
    from_file = starlight.Denoiser(tmp_path / "net.safetensors").denoise(image)
    np.testing.assert_array_equal(from_file, Denoiser(net.half().float()).denoise(image))
    with pytest.raises(FileNotFoundError, match="weights"):
        starlight.Denoiser("no_such_preset")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = starlight.nothing
