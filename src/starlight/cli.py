"""The `starlight` command; a room of the project is imported when a command needs it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from starlight import __version__
from starlight.errors import CommandGroup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Commands that live with what they run: name -> (module:attribute, line for `starlight --help`).
COMMANDS_ELSEWHERE = {
    "denoise": (
        "starlight.denoise.command:denoise",
        "Denoise images, videos, folders, cameras and pipes.",
    ),
    "capture": (
        "starlight.capture.command:capture",
        "Simulate capture sessions, measure a camera's noise.",
    ),
    "truth": ("starlight.capture.command:truth", "Make truth images and pairs from a session."),
    "evaluate": (
        "starlight.evaluation.command:evaluate",
        "Measure denoisers: one folder, or a suite of data sets and peers.",
    ),
    "train": ("starlight.training.command:train", "Train a denoiser, or resume a run."),
}

NOISE_COMMANDS_ELSEWHERE = {
    "denoise": (
        "starlight.denoise.command:denoise",
        "Denoise images, videos, folders, cameras and pipes.",
    ),
    "fit": ("starlight.noise.gan.command:fit", "Fit a noise generator to a pair set."),
    "generate": ("starlight.noise.gan.command:generate", "Make a pair set of generated noise."),
    "judge": (
        "starlight.evaluation.noise_command:judge_command",
        "Judge noise models on real pairs.",
    ),
}


class _Elsewhere(click.Command):
    """A name and a line of help, which stand for the command until it is called."""

    def __init__(self, name: str, origin: str, help_line: str) -> None:
        super().__init__(name, help=help_line)
        self.origin = origin

    def load(self) -> click.Command:
        module, attribute = self.origin.split(":")
        return getattr(import_module(module), attribute)


class _Commands(CommandGroup):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, _Elsewhere) else command, rest


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="starlight")
def main() -> None:
    """Denoise camera images, measure denoisers, train them."""


@main.group(cls=_Commands)
def noise() -> None:
    """Add noise by a formula, learn it from a camera, generate it, judge it."""


for _group, _commands in ((main, COMMANDS_ELSEWHERE), (noise, NOISE_COMMANDS_ELSEWHERE)):
    for _name, (_origin, _help) in _commands.items():
        _group.add_command(_Elsewhere(_name, _origin, _help))

_path = click.Path(path_type=Path)


@noise.command()
@click.argument("source", type=_path, metavar="IN")
@click.argument("target", type=_path, metavar="OUT")
@click.option("--condition", required=True, help="sigma_25, iso_6400, iso_6400_dg2 ...")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--profile", default="imx385", show_default=True, help="Shipped, or a JSON file.")
def add(source: Path, target: Path, condition: str, seed: int, profile: str) -> None:
    """Add noise to an image, or to every image of a folder into another.

    A file of a folder has its own seed, made of its name, the condition and --seed.
    """
    from starlight.denoise.files import map_images
    from starlight.evaluation.suites import image_seed
    from starlight.noise import NoiseCondition

    applied = NoiseCondition.parse(condition, profile)
    in_folder = source.is_dir()

    def degrade(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        return applied.apply(pixels, image_seed(name, applied.name, seed) if in_folder else seed)

    written = map_images(degrade, source, target, progress=in_folder)
    click.echo(f"{len(written)} with {applied.name}: {target}")
