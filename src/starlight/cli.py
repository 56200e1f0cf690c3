"""The `starlight` command; a room of the project is imported when a command needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from starlight import __version__
from starlight.errors import CommandGroup
from starlight.files import check_folder, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from starlight.evaluation import ImageScore

# Commands that live with what they run: name -> (module:attribute, line for `starlight --help`).
COMMANDS_ELSEWHERE = {
    "capture": (
        "starlight.capture.command:capture",
        "Simulate capture sessions, measure a camera's noise.",
    ),
    "truth": ("starlight.capture.command:truth", "Make truth images and pairs from a session."),
    "train": ("starlight.training.command:train", "Train a denoiser, or resume a run."),
}

NOISE_COMMANDS_ELSEWHERE = {
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
_weights = click.option(
    "--weights", default="edge", show_default=True, help="A preset that ships, or a weights file."
)
_threads = click.option("--threads", type=int, help="CPU threads of the network.")
_backend = click.option(
    "--backend",
    type=click.Choice(["reference", "fused"]),
    help="Kernels of the network.  [default: fused where they are built]",
)


@main.command()
@click.argument("source", type=_path, metavar="IN")
@click.argument("target", type=_path, metavar="OUT")
@_weights
@click.option("--tile", type=int, help="Side of a tile in pixels; chosen by size without it.")
@_threads
@_backend
def denoise(
    source: Path,
    target: Path,
    weights: str,
    tile: int | None,
    threads: int | None,
    backend: Any,
) -> None:
    """Denoise an 8-bit RGB image, or every image of a folder into another."""
    from starlight.denoise.denoiser import Denoiser
    from starlight.denoise.files import map_images

    denoiser = Denoiser(weights, tile=tile, threads=threads, backend=backend)
    written = map_images(
        lambda pixels, _: denoiser.denoise(pixels), source, target, progress=source.is_dir()
    )
    click.echo(f"{len(written)} denoised: {target}")


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


@main.command()
@click.argument("folder", type=_path, required=False)
@_weights
@click.option("--conditions", default="sigma_25,iso_6400", show_default=True)
@click.option(
    "--output-range",
    type=click.Choice(["u8_clipped", "float_unclipped"]),
    default="u8_clipped",
    show_default=True,
    help="The noisy input: rounded and clipped to 8 bits as a chip sees it, or neither.",
)
@click.option("--peer", help="Measure a classical denoiser (nlm) in place of the weights.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images, by name.")
@click.option("--seed", type=int, default=0, show_default=True)
@_threads
@click.option("--json", "report", type=_path, help="Also write the figures, image by image.")
def evaluate(
    folder: Path | None,
    weights: str,
    conditions: str,
    output_range: Any,
    peer: str | None,
    limit: int | None,
    seed: int,
    threads: int | None,
    report: Path | None,
) -> None:
    """PSNR and SSIM over the images of FOLDER under noise.

    Without FOLDER: the two held-out photographs that the installed scikit-image carries.
    """
    from starlight.evaluation import evaluate as run
    from starlight.evaluation import evaluation_photographs, folder_photographs, mean_scores
    from starlight.evaluation.peers import find_peer
    from starlight.noise import NoiseCondition

    if report is not None:
        check_folder(report)
    parsed = [NoiseCondition.parse(name.strip()) for name in conditions.split(",")]
    photographs: Mapping[str, NDArray[np.uint8] | Path] = (
        evaluation_photographs() if folder is None else folder_photographs(folder)
    )
    photographs = dict(islice(photographs.items(), limit))
    function: Callable[[NDArray[Any]], NDArray[Any]]
    if peer is None:
        from starlight.denoise.denoiser import Denoiser

        function = Denoiser(weights, threads=threads).denoise
    else:
        function = find_peer(peer)
    scores = run(function, photographs, parsed, output_range, seed, progress=True)
    means = mean_scores(scores)
    click.echo(score_table(scores, means))
    if report is not None:
        write_json(
            report,
            {
                "denoiser": peer or weights,
                "output_range": output_range,
                "seed": seed,
                "version": __version__,
                "mean": {condition: _json_figures(mean) for condition, mean in means.items()},
                "images": [_json_figures(asdict(score)) for score in scores],
            },
        )


def score_table(scores: list[ImageScore], means: dict[str, dict[str, float]]) -> str:
    """The figures as aligned text, one line per image and one mean per condition."""
    width = max(len("mean"), *(len(score.image) for score in scores))
    lines = [f"{'condition':16} {'image':{width}} {'noisy dB':>9} {'dB':>7} {'SSIM':>7}"]

    def line(condition: str, image: str, row: dict[str, Any]) -> str:
        return (
            f"{condition:16} {image:{width}} {row['psnr_noisy']:9.3f} "
            f"{row['psnr']:7.3f} {row['ssim']:7.4f}"
        )

    for condition, mean in means.items():
        members = [score for score in scores if score.condition == condition]
        lines += [line(condition, score.image, asdict(score)) for score in members]
        lines.append(line(condition, "mean", mean))
    return "\n".join(lines)


def _json_figures(row: dict[str, Any]) -> dict[str, Any]:
    """The row with an infinite PSNR (equal images) as null: JSON has no infinity."""
    return {
        key: None if isinstance(value, float) and not isfinite(value) else value
        for key, value in row.items()
    }
