"""The weights that ship, by name: weights/index.toml says which preset and which bytes."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from starlight.config_file import Section, load_settings

FOLDER = Path(__file__).parent.parent / "weights"
INDEX = "index.toml"


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ShippedWeights(Section):
    """One set: the preset that it was trained for and the SHA-256 of NAME.safetensors.

    bundle_sha256: of NAME.slb, its int8 form, where that ships. aliases: further names.
    """

    preset: str
    sha256: Sha256
    bundle_sha256: Sha256 | None = None
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


def check_bytes(path: Path, sha256: str) -> None:
    """Raise ValueError unless the file holds the bytes that shipped."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"weights {path}: SHA-256 must be {sha256}, got {digest}; install the kit anew"
        )


def bundle_path(source: str | os.PathLike[str]) -> Path:
    """The bundle behind a path or the name of weights that ship with their int8 form.

    Raises FileNotFoundError naming both readings, ValueError when it is not what shipped.
    """
    path = Path(source)
    if path.is_file():
        return path
    shipped = {
        name: (weights.with_suffix(".slb"), entry.bundle_sha256)
        for name, (weights, entry) in shipped_weights().items()
        if entry.bundle_sha256 is not None
    }
    if str(source) not in shipped:
        names = ", ".join(sorted(shipped))
        raise FileNotFoundError(
            f"weights: bundle must be an existing file or one that ships ({names}), got {source}"
        )
    path, sha256 = shipped[str(source)]
    check_bytes(path, sha256)
    return path
