"""Write csrc/contract/contract_constants.h: `python -m quant.contract_header [--check]`."""

from pathlib import Path

import click

from quant import contract
from quant.contract import Op
from starlight.errors import OneLineErrors
from starlight.files import write_atomically

HEADER = Path(__file__).resolve().parents[1] / "csrc" / "contract" / "contract_constants.h"
COMMAND = "python -m quant.contract_header"


def header_text() -> str:
    """The C header: every constant of quant.contract as SL_<name>, operations as SL_OP_<name>."""
    lines = [
        f"/* Generated from quant/contract.py by `{COMMAND}`: do not edit. */",
        "#ifndef SL_CONTRACT_CONSTANTS_H",
        "#define SL_CONTRACT_CONSTANTS_H",
        "",
    ]
    for name, value in vars(contract).items():
        if name.isupper() and isinstance(value, int | str):
            lines.append(f"#define SL_{name} {_literal(value)}")
    lines.append("")
    lines.extend(f"#define SL_OP_{op.name} {op.value}" for op in Op)
    lines.extend(["", "#endif", ""])
    return "\n".join(lines)


def _literal(value: int | str) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value) if value >= 0 else f"({value})"


@click.command(cls=OneLineErrors)
@click.option("--check", is_flag=True, help="Write nothing; fail when the header is out of date.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=HEADER,
    help="Header to write or check.",
)
def main(check: bool, output: Path) -> None:
    """Generate the C constants of the integer contract."""
    text = header_text()
    if check:
        if not output.is_file() or output.read_text(encoding="utf-8") != text:
            raise click.ClickException(
                f"contract header: {output} must match quant/contract.py, run `{COMMAND}`"
            )
        return
    write_atomically(output, text.encode())


if __name__ == "__main__":
    main()
