"""The face of every benchmark: it measures cases, and gives a JSON document."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe
from starlight.errors import OneLineErrors
from starlight.files import check_folder, write_json


class Benchmark(OneLineErrors):
    """A command with `--quick`, `--only CASE` and `--json FILE` beside its own options.

    cases: their names in order. The callback receives those selected as `cases`, the `machine`,
        and its own options; it returns the figures in JSON types.
    quick: option name -> its default under `--quick`.
    The command gives {"machine": ..., **figures}; its file holds that under the benchmark's name.
    """

    def __init__(
        self,
        name: str,
        *,
        callback: Callable[..., dict[str, Any]],
        cases: Sequence[str],
        quick: Mapping[str, Any],
        params: Sequence[click.Parameter] = (),
        **attributes: Any,
    ) -> None:
        self.cases = tuple(cases)
        self._quick = dict(quick)
        self._figures = callback
        super().__init__(
            name, callback=self._measure, params=[*params, *self._shared()], **attributes
        )

    def _shared(self) -> list[click.Parameter]:
        names = f"One of {', '.join(self.cases)}; repeatable.  [default: all]"
        file = click.Path(path_type=Path)
        return [
            click.Option(
                ["--quick"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=self._default_to_quick,
                help="The smallest measurement that shows that everything works.",
            ),
            click.Option(["--only"], multiple=True, metavar="CASE", help=names),
            click.Option(["--json", "json_file"], type=file, help="Write the figures there too."),
        ]

    def _default_to_quick(self, ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.default_map = self._quick

    def _measure(
        self, only: tuple[str, ...], json_file: Path | None, **options: Any
    ) -> dict[str, Any]:
        check_cases(only, self.cases)
        if json_file is not None:
            check_folder(json_file)
        machine = describe()
        click.echo(f"{self.name} on {machine}")
        selected = tuple(case for case in self.cases if case in only or not only)
        figures = self._figures(cases=selected, machine=machine, **options)
        document = {"machine": asdict(machine), **figures}
        if json_file is not None:
            write_json(json_file, {str(self.name): document})
        return document


def check_cases(only: Sequence[str], cases: Sequence[str]) -> None:
    """Raise ValueError for a name that is not a case."""
    for name in only:
        if name not in cases:
            raise ValueError(f"benchmarks: case must be one of {', '.join(cases)}, got {name!r}")
