"""Capability files: what a chip can run, how it wants its data, and how fast it is."""

import json
import os
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from quant import contract
from quant.contract import Op
from quant.integer_graph import IntegerGraph

CHIPS = Path(__file__).parent / "chips"
# Sections of a bundle start at multiples of 64, so no layout may ask for more.
LAYOUT_MAX = 64
ACCUMULATOR_BITS_RANGE = (16, 64)

Positive = Annotated[int, Field(gt=0)]
WeightBits = Annotated[int, Field(ge=contract.WEIGHT_BITS_MIN, le=contract.WEIGHT_BITS)]
Layout = Annotated[int, Field(ge=1, le=LAYOUT_MAX)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Capability(_Table):
    """What decides a bundle's layout and whether a graph runs; widths in bits, sizes in pixels."""

    channel_block: Layout
    alignment: Layout
    accumulator_bits: Annotated[
        int, Field(ge=ACCUMULATOR_BITS_RANGE[0], le=ACCUMULATOR_BITS_RANGE[1])
    ]
    activation_bits: Annotated[list[Literal[8, 16]], Field(min_length=1)]
    weight_bits: Annotated[list[WeightBits], Field(min_length=1)]
    arithmetic: Annotated[list[Literal["dyadic", "multiplier"]], Field(min_length=1)]
    ops: list[str]
    max_width: Positive
    max_height: Positive

    @field_validator("channel_block", "alignment")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value

    @field_validator("ops")
    @classmethod
    def _known_ops(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(Op.__members__))
        if unknown:
            raise ValueError(f"must be among {', '.join(Op.__members__)}")
        return value

    @property
    def crc32(self) -> int:
        """CRC-32 of the canonical JSON: keys sorted, no spaces, ASCII."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return zlib.crc32(text.encode("ascii"))

    def packed_weight_bits(self, bits: int) -> int:
        """The bits that a weight of `bits` takes in memory: the least width the chip packs."""
        return min(width for width in self.weight_bits if width >= bits)


class Performance(_Table):
    """What decides speed and energy: lanes of the array, Hz, bytes, bytes per second.

    wide_rate: multiply-accumulates a cycle with a 16-bit input, as a share of those with 8 bits.
    """

    input_lanes: Positive
    output_lanes: Positive
    pixel_lanes: Positive
    wide_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    clock_hz: Positive
    sram_bytes: Positive
    sram_banks: Positive
    weight_buffer_bytes: Positive
    dram_bytes_per_second: Positive
    dram_burst_bytes: Positive
    # Whether DMA decodes the streams of section WRIC: DRAM then moves compressed weights.
    weight_decoder: bool = False


class Chip(_Table):
    """A capability file."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.+-]+$")]
    capability: Capability
    performance: Performance


def known_chips() -> list[str]:
    """Names of the chips that ship with the kit."""
    return sorted(path.stem for path in CHIPS.glob("*.toml"))


def load_chip(name_or_path: str | os.PathLike[str]) -> Chip:
    """Read a chip by its name, or by the path of its .toml file.

    Raises FileNotFoundError for a name or file that is not there, ValueError for a file that is no
    capability file, naming the first field at fault.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = CHIPS / f"{name_or_path}.toml"
        if os.fspath(name_or_path) not in known_chips():
            raise FileNotFoundError(
                f"chip: name must be one of {', '.join(known_chips())}, or the path of a .toml "
                f"file, got {os.fspath(name_or_path)!r}"
            )
    elif not path.is_file():
        raise FileNotFoundError(f"chip: file must exist, got {str(path)!r}")
    try:
        return Chip.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ValueError(f"chip {path}: {_explain(error)}") from None
    except ValueError as error:  # TOML or UTF-8
        raise ValueError(f"chip {path}: content must be TOML, got {error}") from None


def _explain(error: ValidationError) -> str:
    """The first fault of a file in the words of the house."""
    first: Any = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{field} must be present, got none"
    if first["type"] == "extra_forbidden":
        return f"{field} must be a known field, got {first['input']!r}"
    rule = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return f"{field} {rule}, got {first['input']!r}"


def check_fits(graph: IntegerGraph, chip: Chip) -> None:
    """Hold a graph against a chip; the first layer that the chip cannot run raises ValueError."""
    capability = chip.capability
    what = f"chip {chip.name}"
    if graph.arithmetic not in capability.arithmetic:
        raise ValueError(
            f"{what}: arithmetic must include {graph.arithmetic!r}, got {capability.arithmetic}"
        )
    wide = graph.activation_bits // 8
    if capability.alignment < wide:
        raise ValueError(
            f"{what}: alignment must be at least {wide} for {8 * wide}-bit activations, "
            f"got {capability.alignment}"
        )
    for buffer in graph.buffers:
        if buffer.bits not in capability.activation_bits:
            raise ValueError(
                f"{what}, buffer {buffer.name}: activation bits must be among "
                f"{capability.activation_bits}, got {buffer.bits}"
            )
    for layer in graph.layers:
        where = f"{what}, layer {layer.name}"
        if layer.weight_bits > max(capability.weight_bits):
            raise ValueError(
                f"{where}: weight bits must be at most {max(capability.weight_bits)}, "
                f"got {layer.weight_bits}"
            )
        if layer.op.name not in capability.ops:
            raise ValueError(
                f"{where}: op must be among {', '.join(capability.ops)}, got {layer.op.name}"
            )
        bits = graph.accumulator_bits(layer)
        if bits > capability.accumulator_bits:
            raise ValueError(
                f"{where}: accumulator width must be at most {capability.accumulator_bits} bits, "
                f"got {bits}"
            )
