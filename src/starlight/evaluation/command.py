"""`starlight evaluate`: an application, which opens the rooms that a suite names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from starlight.config_file import parse_settings
from starlight.errors import OneLineErrors
from starlight.evaluation.columns import suite_columns
from starlight.evaluation.contenders import suite_contenders
from starlight.evaluation.suite_config import OWN_PHOTOGRAPHS, PeerKind, Suite, load_suite
from starlight.evaluation.suite_report import Report
from starlight.evaluation.suite_run import Sheet, run_suite
from starlight.files import check_folder, write_json
from starlight.tables import check_block, write_block

_path = click.Path(path_type=Path)
_SMALL = ("folder", "weights", "conditions", "output_range", "peer", "limit", "seed", "backend")


@click.command(cls=OneLineErrors)
@click.argument("folder", type=_path, required=False)
@click.option("--suite", "file", type=_path, help="Data sets, protocols, models, peers; in TOML.")
@click.option("--weights", default="edge", show_default=True, help="A preset, or a weights file.")
@click.option("--conditions", default="sigma_25,iso_6400", show_default=True)
@click.option(
    "--output-range",
    type=click.Choice(["u8_clipped", "float_unclipped"]),
    default="u8_clipped",
    show_default=True,
    help="The noisy input: rounded and clipped to 8 bits as a chip sees it, or neither.",
)
@click.option(
    "--peer",
    type=click.Choice([kind for kind in get_args(PeerKind) if kind != "ffdnet"]),
    help="Measure a classical denoiser in place of the weights; it estimates sigma.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images, by name.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option(
    "--backend",
    type=click.Choice(["reference", "fused"]),
    help="Kernels of the network.  [default: fused where they are built]",
)
@click.option("--out", type=_path, help="Folder for all figures; a later run resumes from it.")
@click.option("--json", "report_file", type=_path, help="Also write the figures, image by image.")
@click.option("--write-docs", "document", type=_path, help="Put the table into a document.")
@click.pass_context
def evaluate(
    context: click.Context,
    file: Path | None,
    threads: int | None,
    out: Path | None,
    report_file: Path | None,
    document: Path | None,
    **small: Any,
) -> None:
    """PSNR, SSIM and time of denoisers over noisy images: a suite, or the images of FOLDER.

    Without both: the two held-out photographs that the installed scikit-image carries.
    """
    if file is None:
        suite = _small_suite(**small)
    else:
        given = [name for name in _SMALL if context.get_parameter_source(name) in _GIVEN]
        if given:
            raise ValueError(
                f"evaluate: {given[0].replace('_', '-')} must stand in the suite, got it beside"
            )
        suite = load_suite(file)
    if threads is not None:
        suite = suite.model_copy(update={"threads": threads})
    for target in (report_file, out):
        if target is not None:
            check_folder(target)
    block = f"evaluation-{file.stem}" if file is not None else "evaluation"
    if document is not None:
        check_block(document, block)
    report = run(suite, out, progress=True)
    click.echo(report.markdown())
    if report_file is not None:
        write_json(report_file, report.to_json())
    if document is not None:
        write_block(document, block, report.markdown())


_GIVEN = (
    click.core.ParameterSource.COMMANDLINE,
    click.core.ParameterSource.ENVIRONMENT,
)


def run(suite: Suite, out: Path | None = None, progress: bool = False) -> Report:
    """Measure a suite; out: folder for its files, which a later run resumes from.

    Raises FileNotFoundError, ModuleNotFoundError or ValueError for what a suite names and is not
    there, before anything is measured.
    """
    columns, contenders = suite_columns(suite), suite_contenders(suite)
    sheet = Sheet(suite.sheet_crop, 0 if out is None else suite.sheet_images)
    cells = run_suite(
        contenders.rows,
        columns,
        None if out is None else out / "cells",
        sheet,
        suite.threads,
        progress,
    )
    report = Report(
        suite.title, contenders.rows, columns, cells, contenders.left_out, suite.threads
    )
    if out is not None:
        report.write(out, sheet)
    return report


def _small_suite(
    folder: Path | None,
    weights: str,
    conditions: str,
    output_range: str,
    peer: str | None,
    limit: int | None,
    seed: int,
    backend: str | None,
) -> Suite:
    """The command's options as a suite: one data set, one protocol, one row."""
    name = OWN_PHOTOGRAPHS if folder is None else folder.resolve().name or str(folder)
    fields: dict[str, Any] = {
        "data": [{"name": name, "clean": str(folder or OWN_PHOTOGRAPHS), "limit": limit}],
        "protocol": [
            {
                "data": name,
                "noise": [condition.strip() for condition in conditions.split(",")],
                "input": output_range,
                "seed": seed,
            }
        ],
    }
    if peer is None:
        fields["model"] = [{"weights": weights, "backend": backend}]
    else:
        fields["peer"] = [{"kind": peer}]
    return parse_settings(Suite, fields, "evaluate")
