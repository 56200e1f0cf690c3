"""The columns of a suite's table: a data set under one protocol and noise condition."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starlight.config_file import expanded_path
from starlight.denoise.images import list_images, read_image
from starlight.evaluation.photographs import evaluation_photographs, middle
from starlight.evaluation.suite_config import (
    OWN_PHOTOGRAPHS,
    DataSet,
    Protocol,
    Suite,
)
from starlight.evaluation.suites import noisy_input
from starlight.noise import GaussianNoise, NoiseCondition

Source = Path | NDArray[np.uint8]


@dataclass(frozen=True)
class Column:
    """images: name to (clean, noisy); noisy is None where `condition` makes it."""

    name: str
    data: str
    images: Mapping[str, tuple[Source, Source | None]]
    protocol: Protocol
    condition: NoiseCondition | None

    @property
    def rounded(self) -> bool:
        return self.protocol.result == "u8"

    @property
    def oracle_sigma(self) -> float | None:
        """The deviation of the noise in 8-bit units, where one number is the whole truth."""
        return self.condition.sigma if isinstance(self.condition, GaussianNoise) else None

    def read(self, image: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """(clean, noisy) of one image; noisy is uint8, or float32 in 0..1 and beyond.

        Raises ValueError when the images of a real pair differ in shape.
        """
        clean_source, noisy_source = self.images[image]
        clean = middle(_pixels(clean_source), self.protocol.crop)
        if self.condition is not None:
            condition, protocol = self.condition, self.protocol
            return clean, noisy_input(clean, image, condition, protocol.input, protocol.seed)
        assert noisy_source is not None
        noisy = middle(_pixels(noisy_source), self.protocol.crop)
        if noisy.shape != clean.shape:
            raise ValueError(
                f"data {self.data}: noisy image {image} must have its truth's shape "
                f"{list(clean.shape)}, got {list(noisy.shape)}"
            )
        return clean, noisy

    def fingerprint(self) -> str:
        """SHA-256 over the protocol and every image's name and bytes."""
        settings = self.protocol.model_dump(include={"input", "result", "seed", "crop"})
        digest = hashlib.sha256(f"{self.condition!r} {sorted(settings.items())}".encode())
        for name, sources in self.images.items():
            digest.update(name.encode())
            for source in sources:
                if source is not None:
                    data = source.read_bytes() if isinstance(source, Path) else source.tobytes()
                    digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()


def suite_columns(suite: Suite) -> list[Column]:
    """The columns in the order of the suite's protocols and their noise conditions.

    Raises FileNotFoundError or ValueError for folders without images or pairs, and for two columns
    that are the same.
    """
    images = {data.name: _images(data) for data in suite.data}
    columns = [
        Column(
            _name(protocol, condition), protocol.data, images[protocol.data], protocol, condition
        )
        for protocol in suite.protocol
        for condition in (protocol.conditions() or (None,))
    ]
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"suite: columns must differ, got {name} twice")
    return columns


def _name(protocol: Protocol, condition: NoiseCondition | None) -> str:
    words = [protocol.data, "real" if condition is None else condition.name]
    words += ["float"] * (protocol.input == "float_unclipped")
    words += ["unrounded"] * (protocol.result == "float")
    words += [protocol.profile] * (protocol.profile != "imx385")
    words += [f"crop {protocol.crop}"] * (protocol.crop > 0)
    words += [f"seed {protocol.seed}"] * (protocol.seed > 0)
    return " ".join(words)


def _images(data: DataSet) -> dict[str, tuple[Source, Source | None]]:
    found: dict[str, tuple[Source, Source | None]]
    if data.clean == OWN_PHOTOGRAPHS:
        found = {name: (pixels, None) for name, pixels in evaluation_photographs().items()}
    elif data.clean is not None:
        found = {path.name: (path, None) for path in list_images(expanded_path(data.clean))}
    else:
        found = dict(_pairs(data))
    return dict(list(found.items())[: data.limit])


def _pairs(data: DataSet) -> Iterator[tuple[str, tuple[Source, Source]]]:
    assert data.pairs is not None
    assert data.noisy is not None
    assert data.truth is not None
    folder = Path(expanded_path(data.pairs))
    (before, after), truth = data.noisy.split("*"), data.truth
    noisy = [
        path
        for path in list_images(folder)
        if path.name.startswith(before)
        and path.name.endswith(after)
        and len(path.name) > len(before + after)
    ]
    if not noisy:
        raise ValueError(f"data {data.name}: folder must hold {data.noisy}, got none in {folder}")
    for path in noisy:
        shared = path.name[len(before) : len(path.name) - len(after)]
        clean = folder / truth.replace("*", shared)
        if not clean.is_file():
            raise FileNotFoundError(
                f"data {data.name}: truth of {path.name} must be {clean.name}, got no such file"
            )
        yield shared, (clean, path)


def _pixels(source: Source) -> NDArray[np.uint8]:
    return read_image(source) if isinstance(source, Path) else source
