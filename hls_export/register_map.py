"""Registers of the reference chip's engine: `python -m hls_export.register_map [--check]`.

This table is the one home of every offset, field and reset value. csrc/npu/npu_registers.h and the
table in docs/FIRMWARE.md are written from it; csrc/npu/npu_driver.c programs a layer through them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from starlight.errors import OneLineErrors
from starlight.files import write_atomically
from starlight.tables import replace_block

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "csrc" / "npu" / "npu_registers.h"
DOCUMENT = ROOT / "docs" / "FIRMWARE.md"
BLOCK = "registers"
COMMAND = "python -m hls_export.register_map"

WORD = 4  # bytes of a register
RO, RW, W1 = "read", "read, write", "write 1"


@dataclass(frozen=True)
class Field:
    """Bits [low, low + bits) of a register."""

    name: str
    low: int
    bits: int
    meaning: str

    @property
    def mask(self) -> int:
        return ((1 << self.bits) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """32 bits at an offset from the engine's base; unnamed bits read as zero and ignore writes."""

    name: str
    offset: int
    access: str
    meaning: str
    fields: tuple[Field, ...] = ()
    reset: int = 0


def _tensor(name: str, base: int, what: str) -> Iterator[Register]:
    """The six registers of one activation map."""
    rows = (
        ("ADDRESS_LO", "address of channel 0 of the view at pixel (0, 0), low word"),
        ("ADDRESS_HI", "high word"),
        ("HEIGHT", "rows"),
        ("WIDTH", "columns"),
        ("CHANNELS", "channels of the view"),
        ("PIXEL_STRIDE", "bytes from pixel to pixel; a row is WIDTH pixels"),
    )
    for index, (suffix, meaning) in enumerate(rows):
        yield Register(f"{name}_{suffix}", base + WORD * index, RW, f"{what}: {meaning}")


REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x000, RO, "`SLNP` in ASCII, S lowest", reset=int.from_bytes(b"SLNP", "little")),
    Register(
        "VERSION",
        0x004,
        RO,
        "version of this map; another MAJOR is another map",
        (Field("MINOR", 0, 16, "adds registers"), Field("MAJOR", 16, 16, "changes them")),
        reset=0x0001_0000,
    ),
    Register(
        "CONTROL",
        0x008,
        W1,
        "commands",
        (
            Field("START", 0, 1, "run the layer that the registers describe; ignored while BUSY"),
            Field("CLEAR", 1, 1, "clear DONE and ERROR"),
            Field("RESET", 2, 1, "abandon the layer: once STATUS reads 0, nothing more is written"),
        ),
    ),
    Register(
        "STATUS",
        0x00C,
        RO,
        "state",
        (
            Field("BUSY", 0, 1, "a layer runs; the other registers must not be written"),
            Field("DONE", 1, 1, "the layer is finished and its output is in memory"),
            Field("ERROR", 2, 1, "the layer was refused; nothing was written"),
            Field("CAUSE", 8, 4, "of ERROR: 1 operation, 2 channel block, 3 size"),
        ),
    ),
    Register(
        "LAYER",
        0x020,
        RW,
        "what to compute; the record's op, flags and join",
        (
            Field("OP", 0, 3, "operation id of docs/FORMAT.md"),
            Field("RELU", 3, 1, "the lower end of the clamp is 0"),
            Field("JOIN", 4, 1, "the JOIN map is added into the accumulator"),
            Field("IMAGE_INPUT", 5, 1, "the input is the image as pixel - 128"),
            Field("IMAGE_JOIN", 6, 1, "so is the join"),
            Field("INPUT_OFFSET", 8, 2, "first channel of the image that is read"),
            Field("JOIN_OFFSET", 10, 2, "the same of the join"),
        ),
    ),
    Register("OUT_CHANNELS", 0x024, RW, "of the convolution; for UP four times the output's"),
    Register("CHANNEL_BLOCK", 0x028, RW, "output lanes that the weights are interleaved for"),
    *_tensor("INPUT", 0x040, "input"),
    *_tensor("JOIN", 0x060, "join"),
    *_tensor("OUTPUT", 0x080, "output, int8; unused by TAIL"),
    Register(
        "WEIGHTS_LO", 0x0A0, RW, "address of the layer's weights in streaming order, low word"
    ),
    Register("WEIGHTS_HI", 0x0A4, RW, "high word"),
    Register("CHANNELS_LO", 0x0A8, RW, "address of the layer's rows of CHAN, low word"),
    Register("CHANNELS_HI", 0x0AC, RW, "high word"),
    Register("IMAGE_LO", 0x0C0, RW, "address of the image, uint8 RGB, low word"),
    Register("IMAGE_HI", 0x0C4, RW, "high word"),
    Register("IMAGE_STRIDE", 0x0C8, RW, "bytes from row to row"),
    Register("IMAGE_HEIGHT", 0x0CC, RW, "rows; below the last one it is replicated"),
    Register("IMAGE_WIDTH", 0x0D0, RW, "columns; right of the last one it is replicated"),
    Register("RESULT_LO", 0x0D4, RW, "address of TAIL's image, low word"),
    Register("RESULT_HI", 0x0D8, RW, "high word"),
    Register("RESULT_STRIDE", 0x0DC, RW, "bytes from row to row"),
)


def check_registers(registers: tuple[Register, ...] = REGISTERS) -> None:
    """Raise ValueError when registers or fields overlap, or a name occurs twice."""
    for what, names in (
        ("name", [register.name for register in registers]),
        ("offset", [register.offset for register in registers]),
    ):
        if len(set(names)) != len(names):
            raise ValueError(f"registers: each {what} must occur once, got {names}")
    for register in registers:
        if register.offset % WORD or register.offset < 0:
            raise ValueError(
                f"register {register.name}: offset must be a multiple of {WORD}, "
                f"got {register.offset:#x}"
            )
        used = 0
        for field in register.fields:
            if field.mask & used or field.mask >> 32 or not field.bits:
                raise ValueError(
                    f"register {register.name}: field {field.name} must have bits of its own in "
                    f"0..31, got {field.bits} from {field.low}"
                )
            used |= field.mask


def header_text() -> str:
    """The C header: offsets as NPU_<register>, masks and shifts as NPU_<register>_<field>_..."""
    lines = [
        f"/* Generated from hls_export/register_map.py by `{COMMAND}`: do not edit. */",
        "#ifndef NPU_REGISTERS_H",
        "#define NPU_REGISTERS_H",
        "",
    ]
    for register in REGISTERS:
        lines.append(f"#define NPU_{register.name} 0x{register.offset:03X}u")
        if register.access == RO and register.reset:
            lines.append(f"#define NPU_{register.name}_RESET 0x{register.reset:08X}u")
        for field in register.fields:
            name = f"NPU_{register.name}_{field.name}"
            lines.append(f"#define {name}_MASK 0x{field.mask:08X}u")
            lines.append(f"#define {name}_SHIFT {field.low}")
    end = max(register.offset for register in REGISTERS) + WORD
    lines += ["", f"#define NPU_BYTES 0x{end:03X}u /* of the window */", "", "#endif", ""]
    return "\n".join(lines)


def table_text() -> str:
    """The Markdown table of docs/FIRMWARE.md."""
    lines = ["| offset | register | access | bits | meaning |", "|---|---|---|---|---|"]
    for register in REGISTERS:
        reset = f"; reset 0x{register.reset:08X}" if register.reset else ""
        lines.append(
            f"| 0x{register.offset:03X} | {register.name} | {register.access} | 31:0 "
            f"| {register.meaning}{reset} |"
        )
        for field in register.fields:
            high = field.low + field.bits - 1
            bits = str(high) if field.bits == 1 else f"{high}:{field.low}"
            lines.append(f"| | .{field.name} | | {bits} | {field.meaning} |")
    return "\n".join(lines)


@click.command(cls=OneLineErrors)
@click.option("--check", is_flag=True, help="Write nothing; fail when a file is out of date.")
def main(check: bool) -> None:
    """Write the C header and the document's table of the reference chip's registers."""
    check_registers()
    document = replace_block(DOCUMENT, BLOCK, table_text())
    for path, text in ((HEADER, header_text()), (DOCUMENT, document)):
        if not check:
            write_atomically(path, text.encode())
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise click.ClickException(
                f"registers: {path} must match hls_export/register_map.py, run `{COMMAND}`"
            )


if __name__ == "__main__":
    main(prog_name=COMMAND)
