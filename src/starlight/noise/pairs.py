"""Pair sets on disk: truth images beside noise images, with the gains that made the noise.

A pair set is a folder with `pairs.csv` and the image files that it names (8- or 16-bit). Captured
and generated pairs have one form, so training takes any number of either. Loads no image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from starlight.files import read_table, write_table

Source = Literal["captured", "generated"]
FILE_NAME = "pairs.csv"
COLUMNS = (
    "scene",
    "truth",
    "noise",
    "analog_gain",
    "digital_gain",
    "exposure_ratio",
    "source",
)


@dataclass(frozen=True)
class Pair:
    """One truth image and one noise image of the same content.

    scene           name; pairs of one scene share their content, so a split goes between scenes
    truth, noise    image files of equal size and depth
    analog_gain, digital_gain   of the noise image, each > 0
    exposure_ratio  light of the noise image over the truth's, as captured; the stored noise image
                    is corrected by it, so that both show the same brightness
    source          `captured` by a camera (or its simulation), or `generated` by a noise model

    Raises ValueError for a gain or ratio that is not positive and finite, or another source.
    """

    scene: str
    truth: Path
    noise: Path
    analog_gain: float
    digital_gain: float = 1.0
    exposure_ratio: float = 1.0
    source: Source = "captured"

    def __post_init__(self) -> None:
        if not self.scene.strip():
            raise ValueError("scene must be a name, got an empty one")
        for name in ("analog_gain", "digital_gain", "exposure_ratio"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value:g}")
        if self.source not in get_args(Source):
            known = " or ".join(get_args(Source))
            raise ValueError(f"source must be {known}, got {self.source!r}")

    @property
    def correcting_gain(self) -> float:
        """digital_gain / exposure_ratio: all that multiplied the noise after the converter."""
        return self.digital_gain / self.exposure_ratio


@dataclass(frozen=True)
class PairSet:
    """The pairs of a folder, in the order of its `pairs.csv`; paths lead to existing files."""

    folder: Path
    pairs: tuple[Pair, ...]

    @property
    def scenes(self) -> dict[str, tuple[Pair, ...]]:
        """Scene to its pairs, in order of first appearance."""
        grouped: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            grouped.setdefault(pair.scene, []).append(pair)
        return {scene: tuple(members) for scene, members in grouped.items()}


def read_pairs(folder: str | os.PathLike[str]) -> PairSet:
    """The pair set of a folder.

    Raises FileNotFoundError for a missing folder, `pairs.csv` or image (with its row), ValueError
    for a missing column, an empty table, or a row at fault (with its number; the header is row 1).
    """
    folder = Path(folder)
    table = folder / FILE_NAME
    if not table.is_file():
        raise FileNotFoundError(
            f"pair set {folder}: folder must hold {FILE_NAME}, got "
            f"{'none' if folder.is_dir() else 'no such folder'}; `starlight truth` writes one"
        )
    pairs: list[Pair] = []
    seen: dict[Path, int] = {}
    for number, row in read_table(table, COLUMNS):
        what = f"{table} row {number}"
        pair = _parse(what, folder, row)
        if pair.noise in seen:
            raise ValueError(
                f"{what}: noise must differ from every other row's, got {pair.noise} of row "
                f"{seen[pair.noise]} again"
            )
        seen[pair.noise] = number
        pairs.append(pair)
    return PairSet(folder, tuple(pairs))


def write_pairs(folder: str | os.PathLike[str], pairs: Iterable[Pair]) -> None:
    """Write `pairs.csv` of a folder whose images are there, atomically.

    Floats are written so that they read back equal. Raises ValueError when a path leads out of the
    folder.
    """
    folder = Path(folder)
    rows = []
    for pair in pairs:
        cells = {name: getattr(pair, name) for name in COLUMNS}
        for name in ("truth", "noise"):
            try:
                cells[name] = cells[name].resolve().relative_to(folder.resolve()).as_posix()
            except ValueError:
                raise ValueError(
                    f"pair set {folder}: {name} must lie in the folder, got {cells[name]}"
                ) from None
        rows.append(cells)
    write_table(folder / FILE_NAME, COLUMNS, rows)


def _parse(what: str, folder: Path, row: dict[str, str]) -> Pair:
    numbers: dict[str, float] = {}
    for name in ("analog_gain", "digital_gain", "exposure_ratio"):
        try:
            numbers[name] = float(row[name])
        except ValueError:
            raise ValueError(f"{what}: {name} must be a number, got {row[name]!r}") from None
    files: dict[str, Path] = {}
    for name in ("truth", "noise"):
        relative = PurePosixPath(row[name])
        if not row[name] or relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{what}: {name} must be a path within the folder, got {row[name]!r}")
        files[name] = folder / relative
        if not files[name].is_file():
            raise FileNotFoundError(f"{what}: {name} must be an existing file, got {files[name]}")
    try:
        return Pair(row["scene"], **files, **numbers, source=row["source"])  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
