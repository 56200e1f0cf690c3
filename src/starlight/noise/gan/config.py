"""What a noise GAN is and how it is fitted: two frozen, checked descriptions, the same in JSON."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

WIDTH_FULL: Final = 64
CROP_FULL: Final = 256
GENERATOR_GRID: Final = 4  # two poolings
DISCRIMINATOR_GRID: Final = 16  # four poolings


class GanConfig(BaseModel):
    """The two networks.

    width          channels of the first stage; the others are 2, 4 and 8 times as many. 64 is the
                   full network, 8 trains on one core
    crop           side of the square patches in pixels, a multiple of 16; 256 in the full network.
                   The `encoder` form's fully connected layer has crop / 16 squared positions, so
                   a discriminator belongs to its crop; the generator takes any size
    discriminator  `encoder` ends in the fully connected layer; `unet` mirrors the encoder back to
                   full resolution and averages one score per pixel

    Raises ValueError (pydantic's) on nonsense.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=WIDTH_FULL, ge=1, le=512)
    crop: int = Field(default=CROP_FULL, ge=DISCRIMINATOR_GRID, le=1024)
    discriminator: Literal["encoder", "unet"] = "encoder"

    @field_validator("crop")
    @classmethod
    def _on_grid(cls, crop: int) -> int:
        if crop % DISCRIMINATOR_GRID:
            raise ValueError(f"crop must be a multiple of {DISCRIMINATOR_GRID}, got {crop}")
        return crop


class FitSettings(BaseModel):
    """How long, how fast, and when it is done.

    steps            each trains the discriminator once, then the generator once
    minutes          a cap on training time; what it shortens depends on the machine's speed
    batch            patches per step, over all processes
    learning_rate    of Adam for the generator; `discriminator_rate` for the discriminator. Both
                     stay until half of the steps, then fall to a tenth along a cosine
    logit_penalty    weight of the discriminator's mean squared logit, added to what it descends: an
                     answer that is sure passes no gradient on to the generator
    fix_statistics   share of the steps after which the generator's batch norm keeps its statistics:
                     it is used on single images, which have none of a batch
    ema              decay of the moving average of the generator's weights, which is what is kept
    window           steps over which the losses are averaged for convergence
    band             convergence: both averages within 1/2 +- band ...
    patience         ... for this many steps in a row, once the discriminator has left the band
    precision        `bfloat16` runs convolutions under autocast
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=20_000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=4e-4, gt=0)
    discriminator_rate: float = Field(default=4e-4, gt=0)
    logit_penalty: float = Field(default=0.01, ge=0)
    fix_statistics: float = Field(default=0.1, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    window: int = Field(default=500, ge=1)
    band: float = Field(default=0.02, gt=0, lt=0.5)
    patience: int = Field(default=2000, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0)
    checkpoint_seconds: float = Field(default=60.0, gt=0)
    sheet_steps: int = Field(default=1000, ge=1)
