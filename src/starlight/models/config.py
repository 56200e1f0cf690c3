"""The one description of a denoiser's shape: frozen, checked, the same in JSON."""

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

LEVELS_MAX: Final = 6

# Choices for which an integer form exists; `quant` refuses the others by name.
LOWERABLE: Final[dict[str, tuple[Any, ...]]] = {
    "skip": ("post_up",),
    "residual": ("output",),
    "upsampling": ("pixel_shuffle",),
    "subtraction": (True,),
}


class DenoiserConfig(BaseModel):
    """A network and its Choices (docs/MODEL.md has the table).

    width        channels of the first convolution (M of the first dense block)
    levels       stride-2 steps; images are padded to multiples of 2^levels
    widening     `doubling`: width * 2^level channels at a level; `constant`: width everywhere
    growth       channels that each 3x3 of a dense block adds: `full` M, `half` M/2
    skip         `post_up`: block output + upsampled tensor, at the block's resolution;
                 `module`: module output (after its stride-2 convolution) + upsampling input;
                 `literal`: block k+1 output + upsampling input of equal resolution
    residual     `output`: x + seventh; `literal`: seventh reads [x + out6, x, out4, out5]
    upsampling   `pixel_shuffle` (1x1 to 4C first), `transposed` 2x2, `nearest` then 3x3
    subtraction  output = input - third convolution (else the third convolution alone)

    Raises ValueError (pydantic's) on nonsense; `from_json` and `to_json` are inverse.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: int = Field(ge=1, le=1024)
    levels: int = Field(default=4, ge=1, le=LEVELS_MAX)
    widening: Literal["doubling", "constant"] = "doubling"
    growth: Literal["full", "half"] = "half"
    skip: Literal["post_up", "module", "literal"] = "post_up"
    residual: Literal["output", "literal"] = "output"
    upsampling: Literal["pixel_shuffle", "transposed", "nearest"] = "pixel_shuffle"
    subtraction: bool = True

    @model_validator(mode="after")
    def _choices_agree(self) -> "DenoiserConfig":
        if self.growth == "half" and self.width % 2:
            raise ValueError(f"width must be even with growth 'half', got {self.width}")
        if self.skip == "literal" and self.levels < 2:
            raise ValueError(f"levels must be at least 2 with skip 'literal', got {self.levels}")
        if self.residual == "literal" and self.growth != "full":
            raise ValueError(f"growth must be 'full' with residual 'literal', got {self.growth!r}")
        return self

    @property
    def grid(self) -> int:
        """Height and width of the network's input are multiples of this."""
        return 1 << self.levels

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at level 0 (full resolution) .. levels (the middle)."""
        factor = 2 if self.widening == "doubling" else 1
        return tuple(self.width * factor**level for level in range(self.levels + 1))

    @property
    def growths(self) -> tuple[int, ...]:
        """Channels that each 3x3 of the dense blocks adds, per level."""
        return tuple(width if self.growth == "full" else width // 2 for width in self.widths)

    @property
    def not_lowerable(self) -> tuple[str, ...]:
        """The Choices made here that have no integer form, as "name=value"."""
        return tuple(
            f"{name}={getattr(self, name)}"
            for name, values in LOWERABLE.items()
            if getattr(self, name) not in values
        )

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "DenoiserConfig":
        """Read `to_json`'s text.

        Raises ValueError with one line that names the first field at fault.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "choices"
            raise ValueError(
                f"model config: {field} must be valid ({first['msg']}), got {first['input']!r}"
            ) from error


PRESETS: Final[dict[str, DenoiserConfig]] = {
    "paper": DenoiserConfig(width=128, growth="full"),
    "base": DenoiserConfig(width=32),
    "edge": DenoiserConfig(width=16),
    "tiny": DenoiserConfig(width=8, levels=2),
}


def preset(name: str) -> DenoiserConfig:
    """A preset by name.

    Raises ValueError that lists the known names.
    """
    if name not in PRESETS:
        raise ValueError(f"model: preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
