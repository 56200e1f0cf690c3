"""What the commands share: types and options of `python -m hls_export`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hls_export.group_shape import FRAME

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class Frame(click.ParamType):
    """WIDTHxHEIGHT in pixels, as (height, width); `what` names the command in errors."""

    name = "WIDTHxHEIGHT"

    def __init__(self, what: str) -> None:
        self.what = what

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        width, _, height = str(value).partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            raise ValueError(f"{self.what}: frame must be WIDTHxHEIGHT in pixels, got {value!r}")
        return int(height), int(width)


def frame_option(what: str, use: str) -> Callable[[Command], Command]:
    """`--frame WIDTHxHEIGHT` of the command `what`; use: what it is the frame of."""
    return click.option(
        "--frame",
        type=Frame(what),
        default=f"{FRAME[1]}x{FRAME[0]}",
        show_default=True,
        help=use,
    )


chip_option = click.option(
    "--chip", help="The chip of the bundle: a name, or a .toml file.  [default: by the bundle]"
)


def json_option(what: str) -> Callable[[Command], Command]:
    """`--json FILE`; what: what is written there."""
    return click.option("--json", "json_file", type=PATH, help=f"Write {what} to a JSON file too.")
