"""`python -m hls_export`: export a graph to a chip, look into a bundle, verify it."""

from pathlib import Path

import click

from hls_export import export as exporting
from hls_export.compression import decompress_command
from hls_export.diff import diff_command
from hls_export.disassemble import disassemble_command
from hls_export.explain import explain_command
from hls_export.inspection import inspect_bundle, render
from hls_export.npu import load_chip
from hls_export.options import PATH, frame_option, json_option
from hls_export.report import report_command
from hls_export.vector_set import vectors_command
from hls_export.verify import verify_command
from starlight import __version__
from starlight.errors import CommandGroup
from starlight.files import write_json


@click.group(cls=CommandGroup)
@click.version_option(__version__, prog_name="starlight hls_export")
def main() -> None:
    """Bring an integer graph to a chip with not one bit changed."""


@main.command()
@click.argument("graph", type=PATH)
@click.argument("out", type=PATH)
@click.option("--chip", default="reference", show_default=True, help="A name, or a .toml file.")
@frame_option("export", "Of the bytes and MACs in layers.csv, and of the figures shown.")
@click.option(
    "--compress-weights", is_flag=True, help="Write a bundle with compressed weights beside it too."
)
@json_option("the figures")
def export(
    graph: Path,
    out: Path,
    chip: str,
    frame: tuple[int, int],
    compress_weights: bool,
    json_file: Path | None,
) -> None:
    """Write the bundle of the saved GRAPH, and its files for people and toolchains, into OUT."""
    bundle = exporting.export(graph, out, chip, frame, compress_weights=compress_weights)
    found = exporting.summary(bundle, load_chip(chip), frame)
    click.echo(f"{out / exporting.BUNDLE}: {bundle.bytes} bytes, {len(bundle.layers)} layers")
    saved = found["saved_by_joins"]
    click.echo(
        f"joins copy nothing: {saved['total_bytes'] / 1e6:.1f} MB a frame saved, "
        f"{saved['concatenation_bytes'] / 1e6:.1f} by concatenation, "
        f"{saved['addition_bytes'] / 1e6:.1f} by addition"
    )
    if found["plan"] is not None:
        click.echo(
            f"plan: {found['plan']['groups']} groups, {found['plan']['sram_bytes']} bytes of SRAM, "
            f"{found['plan']['dram_bytes'] / 1e6:.1f} MB of DRAM a frame"
        )
    if compress_weights:
        packed = found["compressed_weights"]
        click.echo(
            f"{out / exporting.PACKED}: weights {packed['compressed_bytes']} bytes for "
            f"{packed['plain_bytes']}, {100 * packed['share']:.1f} %"
        )
    if json_file is not None:
        write_json(json_file, found)


@main.command()
@click.argument("bundle", type=PATH)
@json_option("what is shown")
def inspect(bundle: Path, json_file: Path | None) -> None:
    """Show header, sections, chip, buffers and layers of a BUNDLE; exit 2 when it is damaged."""
    found = inspect_bundle(bundle)
    click.echo(render(found))
    if json_file is not None:
        write_json(json_file, found)
    if found["error"] is not None:
        raise ValueError(f"{bundle}: {found['error']}")


for command in (
    decompress_command,
    diff_command,
    disassemble_command,
    explain_command,
    report_command,
    vectors_command,
    verify_command,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="python -m hls_export")
