"""The network on its two backends: same weights, same results, same gradients, less memory."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases import ERROR_RATIO, ERROR_RATIO_WINOGRAD, error
from torch import Tensor

from starlight.denoise.denoiser import Denoiser
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import load_network, save_weights
from starlight.models.denoiser import default_backend
from starlight.ops import native, operators

CONFIGS = [
    DenoiserConfig(width=8, levels=2),
    DenoiserConfig(width=6, levels=2, growth="full", skip="module", upsampling="transposed"),
    DenoiserConfig(width=4, levels=1, widening="constant", upsampling="nearest"),
]
LITERAL = DenoiserConfig(width=4, levels=1, growth="full", residual="literal")


def pair(config: DenoiserConfig) -> tuple[DenoisingNetwork, DenoisingNetwork]:
    """The same weights on `reference` and on `fused`."""
    torch.manual_seed(0)
    plain = DenoisingNetwork(config)
    fused = DenoisingNetwork(config, "fused")
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def results(network: DenoisingNetwork, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What the network adds to the image, and the gradient of every parameter."""
    image = image.to(next(network.parameters()).dtype)
    output = network(image)
    yield "output", (output - image).detach()
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output.square().mean(), parameters)
    yield from zip(names, gradients, strict=True)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_backends_differ_by_rounding_alone(config: DenoiserConfig, precision: str) -> None:
    plain, fused = pair(config)
    exact = copy.deepcopy(plain).double()
    image = torch.randn(2, 3, 24, 20)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        got = list(zip(results(plain, image), results(fused, image), strict=True))
    total = peers = 0.0
    for (name, wanted), ((_, peer), (_, ours)) in zip(results(exact, image), got, strict=True):
        assert ours.dtype == peer.dtype, name
        total += error(ours, wanted) ** 2
        peers += error(peer, wanted) ** 2
    ratio = ERROR_RATIO_WINOGRAD if precision == "float32" else ERROR_RATIO
    assert total**0.5 <= ratio * peers**0.5


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_backends_agree_in_float64(config: DenoiserConfig) -> None:
    plain, fused = (network.double() for network in pair(config))
    image = torch.randn(1, 3, 16, 28)
    for (name, wanted), (_, ours) in zip(results(plain, image), results(fused, image), strict=True):
        assert error(ours, wanted) <= 1e-12, name


def kept_bytes(network: DenoisingNetwork, image: Tensor) -> int:
    """Activations that a training step holds between forward and backward."""
    own = {value.untyped_storage().data_ptr() for value in (image, *network.parameters())}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = network(image)
        total = sum(kept.values())
    del output
    return total


@pytest.mark.parametrize("growth", ["half", "full"])
def test_training_keeps_at_most_half_of_the_activations(growth: str) -> None:
    plain, fused = pair(DenoiserConfig(width=8, levels=2, growth=growth))  # type: ignore[arg-type]
    image = torch.randn(1, 3, 64, 64)
    assert kept_bytes(fused, image) <= kept_bytes(plain, image) / 2


def test_the_network_compiles_without_a_break() -> None:
    torch.compiler.reset()
    _, fused = pair(CONFIGS[0])
    image = torch.randn(1, 3, 16, 24)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(image), fused(image))


def test_literal_residuals_stay_on_the_reference() -> None:
    with pytest.raises(ValueError, match="backend must be 'reference' with residual 'literal'"):
        DenoisingNetwork(LITERAL, "fused")
    assert default_backend(LITERAL) == "reference"
    assert default_backend(CONFIGS[0]) == "fused"


def test_files_hold_no_backend_and_denoisers_take_the_fused_one(tmp_path: Path) -> None:
    plain, _ = pair(CONFIGS[0])
    save_weights(plain, tmp_path / "weights.safetensors")
    source = tmp_path / "weights.safetensors"
    assert load_network(source).backend == "reference"
    assert load_network(source, backend="fused").backend == "fused"
    assert Denoiser(source).network.backend == "fused"
    assert Denoiser(source, executor="reference").network.backend == "reference"


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of reference, fused, got 'quick'"):
        operators("quick")  # type: ignore[arg-type]


def test_where_nothing_is_built_the_default_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "built", lambda: False)
    with pytest.warns(UserWarning, match=r"`python setup\.py build_ext --inplace` builds it"):
        assert default_backend(CONFIGS[0]) == "reference"
