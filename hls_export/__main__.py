"""`python -m hls_export`: export a graph to a chip, inspect a bundle, verify it."""

from pathlib import Path

import click

from hls_export import export as exporting
from hls_export.diff import diff_command
from hls_export.disassemble import disassemble_command
from hls_export.inspection import inspect_bundle, render
from hls_export.verify import verify_command
from starlight import __version__
from starlight.errors import CommandGroup
from starlight.files import write_json


class Frame(click.ParamType):
    """WIDTHxHEIGHT in pixels, as (height, width)."""

    name = "WIDTHxHEIGHT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        width, _, height = str(value).partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            raise ValueError(f"export: frame must be WIDTHxHEIGHT in pixels, got {value!r}")
        return int(height), int(width)


_path = click.Path(path_type=Path)


@click.group(cls=CommandGroup)
@click.version_option(__version__, prog_name="starlight hls_export")
def main() -> None:
    """Bring an integer graph to a chip with not one bit changed."""


@main.command()
@click.argument("graph", type=_path)
@click.argument("out", type=_path)
@click.option("--chip", default="reference", show_default=True, help="A name, or a .toml file.")
@click.option(
    "--frame",
    type=Frame(),
    default="{1}x{0}".format(*exporting.FRAME),
    show_default=True,
    help="Of the bytes and MACs in layers.csv.",
)
def export(graph: Path, out: Path, chip: str, frame: tuple[int, int]) -> None:
    """Write the bundle of the saved GRAPH, and its files for people and toolchains, into OUT."""
    bundle = exporting.export(graph, out, chip, frame)
    click.echo(f"{out / exporting.BUNDLE}: {bundle.bytes} bytes, {len(bundle.layers)} layers")


@main.command()
@click.argument("bundle", type=_path)
@click.option("--json", "json_file", type=_path, help="Write what is shown to a JSON file too.")
def inspect(bundle: Path, json_file: Path | None) -> None:
    """Show header, sections, chip, buffers and layers of a BUNDLE; exit 2 when it is damaged."""
    found = inspect_bundle(bundle)
    click.echo(render(found))
    if json_file is not None:
        write_json(json_file, found)
    if found["error"] is not None:
        raise ValueError(f"{bundle}: {found['error']}")


main.add_command(diff_command)
main.add_command(disassemble_command)
main.add_command(verify_command)

if __name__ == "__main__":
    main(prog_name="python -m hls_export")
