"""Which arithmetic a network is quantised to, and the bits of each buffer and layer.

A precision file is TOML or JSON. Keys are names of `quant.topology` (buffers: `encoder.0.dense`,
`middle.out`, `second`; layers: `head`, `decoder.0.up`, `middle.dense.conv1`) or shell patterns over
them; of the patterns that match, the last one counts. What nothing names has 8 bits.

    arithmetic = "multiplier"    # or "dyadic", the default
    [activation_bits]            # 8 or 16; the members of a dense block share a buffer
    "decoder.0.*" = 16
    [weight_bits]                # 4..8
    "middle.dense.*" = 4
"""

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quant import contract
from quant.integer_graph import IMAGE
from quant.topology import Topology, buffer_shapes, layer_shapes

WeightBits = Annotated[int, Field(ge=contract.WEIGHT_BITS_MIN, le=contract.WEIGHT_BITS)]


class Precision(BaseModel):
    """Arithmetic, and pattern of names -> bits; frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    arithmetic: Literal["dyadic", "multiplier"] = "dyadic"
    activation_bits: dict[str, Literal[8, 16]] = {}
    weight_bits: dict[str, WeightBits] = {}

    @property
    def dyadic(self) -> bool:
        return self.arithmetic == contract.ARITHMETIC

    def buffer(self, name: str) -> int:
        """Bits of a buffer; the image has 8."""
        if name == IMAGE:
            return contract.ACTIVATION_BITS
        return _last_match(self.activation_bits, name, contract.ACTIVATION_BITS)

    def layer(self, name: str) -> int:
        """Bits of a layer's weights."""
        return _last_match(self.weight_bits, name, contract.WEIGHT_BITS)

    def check(self, topology: Topology) -> None:
        """Raise ValueError for a pattern that names nothing of the network."""
        buffers = [name for name, _, _ in buffer_shapes(topology) if name != IMAGE]
        _check_names("activation_bits", self.activation_bits, buffers)
        layers = [shape.name for shape in layer_shapes(topology)]
        _check_names("weight_bits", self.weight_bits, layers)


def _last_match(bits: Mapping[str, int], name: str, otherwise: int) -> int:
    found = [width for pattern, width in bits.items() if fnmatchcase(name, pattern)]
    return found[-1] if found else otherwise


def _check_names(table: str, patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"precision: {table} must name one of {', '.join(names)}, got {pattern!r}"
            )


def load_precision(path: str | os.PathLike[str]) -> Precision:
    """Read a .toml or .json file.

    Raises FileNotFoundError when there is none, ValueError naming the field at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"precision: file must exist, got {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return Precision.model_validate_json(text)
        return Precision.model_validate(tomllib.loads(text))
    except ValidationError as error:
        first: Any = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise ValueError(
            f"precision {path}: {field} must be valid ({first['msg']}), got {first['input']!r}"
        ) from None
    except ValueError as error:  # TOML or UTF-8
        raise ValueError(f"precision {path}: content must be TOML, got {error}") from None
