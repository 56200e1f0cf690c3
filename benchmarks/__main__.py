"""`python -m benchmarks`: list the benchmarks, run all or some of them."""

from pathlib import Path
from typing import Any

import click

from benchmarks import (
    choices,
    cuda,
    cycles,
    engine,
    executors,
    flicker,
    ops,
    pipeline,
    planner,
    recipe,
    sizes,
)
from benchmarks.command import Benchmark, check_cases
from starlight.errors import OneLineErrors
from starlight.files import check_folder, write_json

BENCHMARKS: dict[str, Benchmark] = {
    str(command.name): command
    for command in (
        executors.main,
        choices.main,
        sizes.main,
        recipe.main,
        ops.main,
        engine.main,
        cuda.main,
        planner.main,
        cycles.main,
        pipeline.main,
        flicker.main,
    )
}


@click.command(cls=OneLineErrors)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "listing", is_flag=True, help="Show names and cases, run nothing.")
@click.option("--quick", is_flag=True, help="Each as small as shows that everything works.")
@click.option("--only", multiple=True, metavar="CASE", help="Those cases alone; repeatable.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures there too."
)
def main(
    names: tuple[str, ...],
    listing: bool,
    quick: bool,
    only: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Run the benchmarks NAME, or all of them; each has more options: python -m benchmarks.NAME."""
    selected = _select(names, only)
    if listing:
        for name, command in selected.items():
            click.echo(f"{name:12}{command.get_short_help_str(limit=100)}")
            click.echo(f"{'':12}{', '.join(command.cases)}")
        return
    if json_file is not None:
        check_folder(json_file)
    document: dict[str, Any] = {}
    for name, command in selected.items():
        arguments = ["--quick"] if quick else []
        for case in only:
            arguments += ["--only", case] if case in command.cases else []
        document[name] = command.main(arguments, standalone_mode=False)
        if json_file is not None:
            write_json(json_file, document)


def _select(names: tuple[str, ...], only: tuple[str, ...]) -> dict[str, Benchmark]:
    """The benchmarks named, or all; of these, the ones that have a case of `only`."""
    for name in names:
        if name not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise ValueError(f"benchmarks: name must be one of {known}, got {name!r}")
    named = {name: command for name, command in BENCHMARKS.items() if name in names or not names}
    check_cases(only, [case for command in named.values() for case in command.cases])
    return {
        name: command
        for name, command in named.items()
        if not only or set(only) & set(command.cases)
    }


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
