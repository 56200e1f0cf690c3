"""`train.toml`: what `starlight train` is told, checked whole before any work."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from starlight.config_file import Section, explain, load_settings, parse_settings
from starlight.models.config import DenoiserConfig, preset
from starlight.noise.profiles import CameraProfile
from starlight.noise.training import TrainingNoise
from starlight.ops import Backend
from starlight.training.growth import Growth
from starlight.training.loop import TrainingSettings
from starlight.training.losses import Kind

OWN_PHOTOGRAPHS = "scikit-image"


class Rung(Section):
    """A network; what is not given stays as in the rung before (in the first one: the default).

    preset   of the first rung alone: the fields of a preset, which the others then change
    """

    preset: str | None = None
    width: int | None = None
    levels: int | None = None
    widening: str | None = None
    growth: str | None = None
    skip: str | None = None
    residual: str | None = None
    upsampling: str | None = None
    subtraction: bool | None = None

    def after(self, before: DenoiserConfig | None) -> DenoiserConfig:
        """The network's config, given that of the rung before."""
        fields: dict[str, Any] = {} if before is None else before.model_dump()
        if self.preset is not None:
            if before is not None:
                raise ValueError(f"growth.ladder: preset must stand in network, got {self.preset}")
            fields = preset(self.preset).model_dump()
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return _config(fields | {name: given[name] for name in given if name != "preset"})


def _config(fields: dict[str, Any]) -> DenoiserConfig:
    try:
        return DenoiserConfig.model_validate(fields)
    except ValidationError as error:
        raise ValueError(explain(error, "network")) from None


class Data(Section):
    """One source of samples: a pair set, or clean photographs and the noise to draw on them.

    pairs        folder of a pair set (`starlight truth`, `starlight noise generate`)
    clean        folder of clean 8-bit photographs, or `scikit-image`: those inside that package
    weight       share of the samples, over the sum of all weights
    only         of a pair set, only pairs that a camera captured or only generated ones
    zoom_max     of `clean`, patches are enlarged by a factor of 1..zoom_max: a sensor's pixels
                 are softer than those of a photograph that was reduced
    The others belong to `clean` and are as of `TrainingNoise`.
    """

    pairs: str | None = None
    clean: str | None = None
    weight: float = Field(default=1.0, gt=0)
    zoom_max: float | None = None
    only: Literal["captured", "generated"] | None = None
    gaussian_fraction: float | None = None
    sigma_max: float | None = None
    digital_gain_max: float | None = None
    u8_fraction: float | None = None
    profile: str | None = None
    curve: str | None = None
    demosaic_fraction: float | None = None
    smooth_fraction: float | None = None
    smooth_sigma_max: float | None = None
    jpeg_fraction: float | None = None
    jpeg_quality_min: int | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Data:
        if (self.pairs is None) == (self.clean is None):
            raise ValueError("must have either pairs or clean")
        if self.clean is not None and self.only is not None:
            raise ValueError("only must stand beside pairs")
        if self.pairs is not None and (fields := self._fields("pairs", "clean", "weight", "only")):
            raise ValueError(f"{', '.join(fields)} must stand beside clean")
        return self

    def _fields(self, *but: str) -> dict[str, Any]:
        """What the section gives, but for these."""
        return self.model_dump(exclude=set(but), exclude_none=True)

    def noise(self) -> TrainingNoise:
        """The noise of a source of clean photographs."""
        fields = self._fields("pairs", "clean", "weight", "only", "zoom_max")
        if "profile" in fields:
            fields["profile"] = CameraProfile.load(fields["profile"])
        return TrainingNoise(**fields)


class Training(TrainingSettings):
    """The loop: until loss <= threshold, or over a given number of steps.

    threshold      the loss of the averaged weights on the check pairs at which the network is done;
                   none: train over `steps` or `minutes` with schedule `cosine`
    loss           `l1`, `l2` or `log` (`losses.sample_loss`) in the network's units,
                   (pixel - 128) / 128; `log` with schedule `cosine` alone: it can be negative
    batch, patch   samples per step over all processes, and their side in pixels
    schedule       `plateau`: the rate drops and the network grows when the loss stalls; `cosine`:
                   over `steps` or `minutes`, one rung
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(default=None, ge=1)
    threshold: float | None = Field(default=None, gt=0)
    loss: Kind = "l1"
    batch: int = Field(default=8, ge=1)
    patch: int = Field(default=96, ge=1)
    schedule: Literal["plateau", "cosine"] = "plateau"


class GrowthPolicy(Section):
    """When a loss that stays above the threshold counts as stalled, and what is done then.

    check_every    steps between checks; check_batches: batches of a check
    gain           a check counts as progress when the loss fell by this share of the lowest so far
    patience       checks without progress in a row that make a stall
    drops          stalls of a rung that multiply the learning rate by `drop_factor`; the next one
                   grows the network to the next rung
    restart        learning rate of a rung after the first, over `learning_rate`
    ladder         the rungs after the first
    """

    check_every: int = Field(default=500, ge=1)
    check_batches: int = Field(default=16, ge=1)
    gain: float = Field(default=0.005, ge=0, lt=1)
    patience: int = Field(default=6, ge=1)
    drops: int = Field(default=1, ge=0)
    drop_factor: float = Field(default=0.3, gt=0, lt=1)
    restart: float = Field(default=1.0, gt=0, le=1)
    ladder: tuple[Rung, ...] = ()


class Log(Section):
    """every: steps between rows of log.csv; tensorboard: also write event files."""

    every: int = Field(default=50, ge=1)
    tensorboard: bool = False


class TrainingConfig(Section):
    """All of `train.toml`.

    Paths are relative to the current folder, as on the command line; `$NAME` in `pairs` or `clean`
    stands for an environment variable.

    weights   what the first rung starts from, a file or a shipped name; none: drawn by the seed
    """

    out: str | None = None
    seed: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    device: str | None = None
    backend: Backend | None = None
    memory_gb: float = Field(default=4.0, gt=0)
    network: Rung = Rung(preset="edge")
    weights: str | None = None
    data: tuple[Data, ...] = Field(default=(Data(clean=OWN_PHOTOGRAPHS),), min_length=1)
    check: tuple[Data, ...] = ()
    training: Training
    growth: GrowthPolicy = GrowthPolicy()
    log: Log = Log()

    @model_validator(mode="after")
    def _sections_agree(self) -> TrainingConfig:
        training, rungs = self.training, self.rungs
        if training.loss == "log" and (training.schedule, training.threshold) != ("cosine", None):
            raise ValueError("training: loss log must have schedule cosine and no threshold")
        if training.schedule == "cosine":
            if training.steps is None and training.minutes is None:
                raise ValueError("training: steps or minutes must be given with schedule cosine")
            if len(rungs) > 1:
                raise ValueError("growth.ladder: must be empty with schedule cosine")
        elif training.threshold is None:
            raise ValueError("training: threshold must be given with schedule plateau")
        grid = max(rung.grid for rung in rungs)
        if training.patch % grid:
            raise ValueError(f"training: patch must be a multiple of {grid}, got {training.patch}")
        return self

    @property
    def rungs(self) -> tuple[DenoiserConfig, ...]:
        """The networks from the first to the largest.

        Raises ValueError for a rung that is not the one before made wider or deeper.
        """
        rungs = [self.network.after(None)]
        for index, rung in enumerate(self.growth.ladder):
            larger = rung.after(rungs[-1])
            try:
                Growth(rungs[-1], larger)
            except ValueError as error:
                raise ValueError(f"growth.ladder.{index}: {error}") from None
            rungs.append(larger)
        return tuple(rungs)


def load_config(path: str | os.PathLike[str]) -> TrainingConfig:
    """Read a TOML file; raises as `load_settings`."""
    return load_settings(TrainingConfig, path, "training config")


def parse_config(fields: dict[str, Any], what: str = "training config") -> TrainingConfig:
    """The config of nested dicts, as `load_config`."""
    return parse_settings(TrainingConfig, fields, what)
