"""Weights on disk: safetensors in fp16 with the config beside them as metadata."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from starlight.files import write_atomically
from starlight.models.config import PRESETS, DenoiserConfig
from starlight.models.denoiser import DenoisingNetwork, default_backend
from starlight.models.shipped import check_bytes, shipped_weights
from starlight.ops import Backend

CONFIG_KEY = "starlight.config"


def save_weights(network: DenoisingNetwork, path: str | os.PathLike[str]) -> None:
    """Write the network's weights (fp16) and config, atomically.

    Raises ValueError when a weight is not finite in fp16.
    """
    state = {
        name: value.detach().cpu().half().contiguous()
        for name, value in network.state_dict().items()
    }
    _check_finite(state, f"weights {path}")
    write_atomically(path, save(state, metadata={CONFIG_KEY: network.config.to_json()}))


def load_network(
    source: str | os.PathLike[str],
    expected: DenoiserConfig | None = None,
    backend: Backend | None = "reference",
) -> DenoisingNetwork:
    """A network in float32, eval mode, from a file or from the name of weights that ship.

    backend: as of `DenoisingNetwork`; None: `default_backend` of the file's config.

    Raises FileNotFoundError when there is no such file, ValueError when it is truncated, holds
    NaN or infinity, does not fit its config, has another config than `expected`, or when it
    shipped and is not what shipped.
    """
    path = weights_path(source)
    what = f"weights {path}"
    if path != Path(source):
        _, shipped = shipped_weights()[str(source)]
        check_bytes(path, shipped.sha256)
        expected = expected or PRESETS[shipped.preset]
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{what}: file must be a complete safetensors file, got {error}"
        ) from error
    if CONFIG_KEY not in metadata:
        raise ValueError(f"{what}: metadata must hold {CONFIG_KEY}, got {sorted(metadata)}")
    config = DenoiserConfig.from_json(metadata[CONFIG_KEY])
    if expected is not None and config != expected:
        raise ValueError(
            f"{what}: config must be {expected.to_json()}, got {config.to_json()}; "
            "choose the preset that the weights were trained for"
        )
    with torch.device("meta"):
        network = DenoisingNetwork(config, backend or default_backend(config))
    _check_shapes(network, state, what)
    _check_finite(state, what)
    network.load_state_dict(state, assign=True)
    return network.eval()


def weights_path(source: str | os.PathLike[str]) -> Path:
    """The file behind a path or the name of weights that ship.

    Raises FileNotFoundError naming both readings.
    """
    path = Path(source)
    if path.is_file():
        return path
    shipped = shipped_weights()
    if str(source) in shipped:
        return shipped[str(source)][0]
    raise FileNotFoundError(
        f"weights: source must be a file or one of the shipped weights "
        f"({', '.join(sorted(shipped))}), got {source}"
    )


def _check_shapes(network: DenoisingNetwork, state: dict[str, Tensor], what: str) -> None:
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    got = {name: value.shape for name, value in state.items()}
    for name in sorted(wanted.keys() | got.keys()):
        if wanted.get(name) != got.get(name):
            raise ValueError(
                f"{what}: tensor {name} must have shape {_text(wanted.get(name))}, "
                f"got {_text(got.get(name))}"
            )


def _text(shape: torch.Size | None) -> str:
    return "none (no such tensor)" if shape is None else str(list(shape))


def _check_finite(state: dict[str, Tensor], what: str) -> None:
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{what}: tensor {name} must be finite, got NaN or infinity")
