"""The weights that ship, by name: weights/index.toml says which preset and which bytes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from pydantic import Field

from starlight.config_file import Section, load_settings

FOLDER = Path(__file__).parent.parent / "weights"
INDEX = "index.toml"


class ShippedWeights(Section):
    """One set: the preset that it was trained for and the SHA-256 of NAME.safetensors.

    aliases: further names.
    """

    preset: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    aliases: tuple[str, ...] = ()


class _Index(Section):
    weights: dict[str, ShippedWeights]


@cache
def shipped_weights(folder: Path = FOLDER) -> dict[str, tuple[Path, ShippedWeights]]:
    """Name or alias -> file and what is known of it."""
    index = load_settings(_Index, folder / INDEX, "index of weights")
    return {
        known: (folder / f"{name}.safetensors", entry)
        for name, entry in index.weights.items()
        for known in (name, *entry.aliases)
    }


def check_bytes(path: Path, entry: ShippedWeights) -> None:
    """Raise ValueError unless the file holds the bytes that shipped."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry.sha256:
        raise ValueError(
            f"weights {path}: SHA-256 must be {entry.sha256}, got {digest}; install the kit anew"
        )
