"""`suite.toml`: data sets, protocols, models and peers of one table, checked whole before any work.

Paths are relative to the current folder, as on the command line; `$NAME` in one stands for an
environment variable.
"""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, model_validator

from starlight.config_file import Section, load_settings
from starlight.noise import NoiseCondition
from starlight.noise.conditions import OutputRange

OWN_PHOTOGRAPHS = "scikit-image"


class DataSet(Section):
    """Clean photographs to add noise to, or real noisy images with their truth.

    name         how protocols and the table call it
    clean        folder of clean 8-bit photographs, or `scikit-image`: two inside that package
    pairs        folder of real pairs, with
    noisy, truth   file names of a pair, one `*` in each for what they share (`*_real.JPG`)
    limit        only the first images, by name
    """

    name: str = Field(min_length=1)
    clean: str | None = None
    pairs: str | None = None
    noisy: str | None = None
    truth: str | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> DataSet:
        if (self.pairs is None) == (self.clean is None):
            raise ValueError("must have either pairs or clean")
        for name, pattern in (("noisy", self.noisy), ("truth", self.truth)):
            if (pattern is None) != (self.pairs is None):
                raise ValueError(f"{name} must stand beside pairs, and only there")
            if pattern is not None and pattern.count("*") != 1:
                raise ValueError(f"{name} must have one *, got {pattern}")
        return self


class Protocol(Section):
    """How a data set is measured; one column of the table per noise condition.

    data     name of the data set
    noise    names of noise conditions (`sigma_25`, `iso_6400`); none for real pairs
    profile  camera of the `iso_` conditions: a profile that ships, or a JSON file
    input    `u8_clipped`: rounded to 8 bits and clipped; `float_unclipped`: neither
    result   `u8`: rounded by floor(x + 0.5) and clipped before it is scored; `float`: neither, for
             unclipped input alone
    seed     of the noise, with the names of image and condition
    crop     side of the middle square that is cut out before noise is added; 0: whole images
    """

    data: str
    noise: tuple[str, ...] = ()
    profile: str = "imx385"
    input: OutputRange = "u8_clipped"
    result: Literal["u8", "float"] = "u8"
    seed: int = Field(default=0, ge=0)
    crop: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _agrees(self) -> Protocol:
        if self.result == "float" and self.input == "u8_clipped":
            raise ValueError("result must be u8 with input u8_clipped, got float")
        self.conditions()
        return self

    def conditions(self) -> tuple[NoiseCondition, ...]:
        return tuple(NoiseCondition.parse(name, self.profile) for name in self.noise)


class Model(Section):
    """A network of ours: the weights of a float network, or a bundle of integers.

    name      of the row; without it the weights or bundle
    weights   a preset that ships, or a weights file
    backend   kernels of a float network; without it `fused` where it is built
    bundle    a bundle file or the name of one that ships, run by
    executor  `numpy`, the golden model, `c`, the firmware runtime, or `engine`
    optional  left out, with the reason under the table, where something that it needs is missing
    """

    name: str | None = None
    weights: str | None = None
    backend: Literal["reference", "fused"] | None = None
    bundle: str | None = None
    executor: Literal["numpy", "c", "engine"] = "c"
    optional: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Model:
        if (self.weights is None) == (self.bundle is None):
            raise ValueError("must have either weights or bundle")
        if self.backend is not None and self.weights is None:
            raise ValueError("backend must stand beside weights")
        if "executor" in self.model_fields_set and self.bundle is None:
            raise ValueError("executor must stand beside bundle")
        return self


PeerKind = Literal["ffdnet", "nlm", "bm3d"]


class Peer(Section):
    """A denoiser of others, which is told the noise's deviation in 8-bit units.

    kind      `ffdnet`, `nlm` (OpenCV's non-local means), `bm3d` (the package of that name)
    name      of the row; without it kind and sigma
    weights   file of FFDNet's weights
    sigma     `estimated`: from the noisy image alone, by `noise_sigma`; `oracle`: the sigma of
              `sigma_N`, elsewhere the cell stays empty; `best`: the one of `grid` with the best
              mean PSNR over the column, which knows the truth; or a number
    grid      the sigmas that `best` may take, ascending; the search climbs from the middle to the
              first peak
    optional  as of `Model`
    """

    kind: PeerKind
    name: str | None = None
    weights: str | None = None
    sigma: Literal["estimated", "oracle", "best"] | float = "estimated"
    grid: tuple[float, ...] = (2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)
    optional: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Peer:
        if (self.weights is None) == (self.kind == "ffdnet"):
            raise ValueError("weights must be given for ffdnet, and only there")
        if not isinstance(self.sigma, str) and self.sigma <= 0:
            raise ValueError(f"sigma must be > 0, got {self.sigma:g}")
        if not self.grid or self.grid[0] <= 0 or sorted(set(self.grid)) != list(self.grid):
            raise ValueError(f"grid must be > 0 and ascending, got {list(self.grid)}")
        return self


class Suite(Section):
    """All of `suite.toml`.

    title        over the table
    threads      CPU threads of every row; none: as each package has it
    sheet_crop   side of the crops of the picture sheet; sheet_images: images per column in it
    """

    title: str = "Evaluation"
    threads: int | None = Field(default=None, ge=1)
    sheet_crop: int = Field(default=128, ge=8)
    sheet_images: int = Field(default=1, ge=0)
    data: tuple[DataSet, ...] = Field(min_length=1)
    protocol: tuple[Protocol, ...] = Field(min_length=1)
    model: tuple[Model, ...] = ()
    peer: tuple[Peer, ...] = ()

    @model_validator(mode="after")
    def _sections_agree(self) -> Suite:
        names = [data.name for data in self.data]
        if len(set(names)) != len(names):
            raise ValueError(f"data: names must differ, got {', '.join(names)}")
        for index, protocol in enumerate(self.protocol):
            where = f"protocol.{index}"
            if protocol.data not in names:
                raise ValueError(
                    f"{where}: data must be one of {', '.join(names)}, got {protocol.data}"
                )
            real = self.data[names.index(protocol.data)].pairs is not None
            if real and (protocol.noise or protocol.input != "u8_clipped"):
                raise ValueError(f"{where}: noise and input must be left out for real pairs")
            if not real and not protocol.noise:
                raise ValueError(f"{where}: noise must name a condition, got none")
        if not (self.model or self.peer):
            raise ValueError("model or peer must be given, got none")
        return self


def load_suite(path: str | os.PathLike[str]) -> Suite:
    """Read a TOML file; raises as `load_settings`."""
    return load_settings(Suite, path, "suite")
