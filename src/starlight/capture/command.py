"""`starlight capture` and `starlight truth`: sessions made, measured, turned into pair sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from starlight.bayer import PATTERNS
from starlight.capture.alignment import ALIGNMENTS
from starlight.capture.camera import CameraConfig, DefectRates
from starlight.capture.clipping import CLIPPINGS
from starlight.capture.dead_pixels import DEAD_PIXELS
from starlight.capture.estimate import estimate_noise
from starlight.capture.publish import EXPOSURES, write_format, write_scene
from starlight.capture.report import scene_figures, summary, write_pictures
from starlight.capture.session import read_session
from starlight.capture.simulate import SimulationSettings, simulate_session
from starlight.capture.truth import PLAIN_MEAN, TruthSettings, make_truth
from starlight.errors import CommandGroup, OneLineErrors
from starlight.files import check_folder, write_json
from starlight.images import read_pixels
from starlight.noise.calibration import NoisePoints, fit_noise, flat_pair_points
from starlight.noise.pairs import Pair, write_pairs
from starlight.noise.tone import TONE_CURVES

Model = TypeVar("Model", bound=BaseModel)

_path = click.Path(path_type=Path)
_camera = CameraConfig()
_settings = SimulationSettings()
_truth = TruthSettings()


def _checked(what: str, model: type[Model], **values: Any) -> Model:
    """The settings, or a ValueError of one line for the first value at fault."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        rule = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            name = str(first["loc"][-1])
            rule = f"{what}: {name} must {rule.replace('Input should ', '')}, got {first['input']}"
        raise ValueError(rule) from None


@click.group(cls=CommandGroup)
def capture() -> None:
    """Capture sessions: simulate one, measure a camera's noise from one."""


@capture.command(cls=OneLineErrors)
@click.argument("clean", type=_path)
@click.argument("out", type=_path)
@click.option("--scenes", default=1, show_default=True, help="Photographs of CLEAN, by name.")
@click.option("--frames", default=_settings.frames, show_default=True, help="Target frames.")
@click.option("--dark", type=int, help="Dark frames.  [default: as target]")
@click.option("--noisy", type=int, help="Noisy frames at 0.1 to 100 lux.  [default: as target]")
@click.option("--seed", default=0, show_default=True)
@click.option("--isp/--raw", default=False, help="Encoded RGB, or raw mosaics.  [default: raw]")
@click.option("--isp-bits", type=click.Choice(["8", "16"]), default="8", show_default=True)
@click.option("--isp-scale", default=_camera.isp_scale, show_default=True, help="Reduction.")
@click.option(
    "--tone", type=click.Choice(list(TONE_CURVES)), default=_camera.tone, show_default=True
)
@click.option(
    "--pattern", type=click.Choice([*PATTERNS, "none"]), default=_camera.pattern, show_default=True
)
@click.option("--profile", default=_camera.profile, show_default=True, help="Shipped, or JSON.")
@click.option("--gain", default=_settings.analog_gain, show_default=True, help="Of the targets.")
@click.option("--digital-gain", default=_settings.digital_gain, show_default=True)
@click.option("--drift", default=_settings.drift, show_default=True, help="Of the light, a share.")
@click.option("--flicker", default=0.0, show_default=True, help="Share of frames 15 % too bright.")
@click.option("--row-noise", default=_camera.row_noise, show_default=True, help="In read noises.")
@click.option(
    "--highlights",
    default=_settings.highlights,
    show_default=True,
    help="Share of samples that clip; 0: as the photograph is.",
)
@click.option("--hot", default=_camera.defects.hot, show_default=True, help="Share of pixels.")
@click.option("--stuck-low", default=_camera.defects.stuck_low, show_default=True)
@click.option("--stuck-high", default=_camera.defects.stuck_high, show_default=True)
@click.option("--dead", default=_camera.defects.dead, show_default=True)
def simulate(
    clean: Path,
    out: Path,
    isp: bool,
    isp_bits: str,
    isp_scale: int,
    tone: str,
    pattern: str,
    profile: str,
    gain: float,
    row_noise: float,
    highlights: float,
    hot: float,
    stuck_low: float,
    stuck_high: float,
    dead: float,
    **settings: Any,
) -> None:
    """Photograph CLEAN's images with a simulated camera; the truth stays beside the frames.

    OUT is a session: metadata.csv, format.json, SCENE/{dark,target,noisy}/NNNN.png and
    SCENE/known.npz.
    """
    config = _checked(
        "camera",
        CameraConfig,
        profile=profile,
        pattern=None if pattern == "none" else pattern,
        isp=isp,
        isp_bits=int(isp_bits),
        isp_scale=isp_scale,
        tone=tone,
        row_noise=row_noise,
        defects=_checked(
            "camera", DefectRates, hot=hot, stuck_low=stuck_low, stuck_high=stuck_high, dead=dead
        ),
    )
    chosen = _checked(
        "simulation",
        SimulationSettings,
        analog_gain=gain,
        highlights=highlights or None,
        **settings,
    )
    simulate_session(clean, out, chosen, config, progress=True)
    click.echo(f"{chosen.scenes} scenes: {out}")


@capture.command(cls=OneLineErrors)
@click.argument("session", type=_path, required=False)
@click.option(
    "--flat",
    "flats",
    type=(_path, _path),
    multiple=True,
    metavar="A B",
    help="A pair of flat frames in place of a session (repeatable, at several lights).",
)
@click.option("--black", default=0.0, show_default=True, help="Reading of flats without light.")
@click.option("--json", "report", type=_path, help="Also write the figures.")
def estimate(
    session: Path | None, flats: tuple[tuple[Path, Path], ...], black: float, report: Path | None
) -> None:
    """Noise of a camera, variance = a x signal + b, from SESSION's bursts or from flat pairs."""
    if (session is None) == (not flats):
        raise ValueError("estimate: source must be a SESSION or --flat pairs, got both or neither")
    if report is not None:
        check_folder(report)
    rows: list[dict[str, Any]] = []
    if session is not None:
        for found in estimate_noise(read_session(session), progress=True):
            row = asdict(found)
            rows.append(
                row | {"fit": row["fit"] | {"electrons_per_dn": found.fit.electrons_per_dn}}
            )
            click.echo(
                f"analog gain {found.analog_gain:g}, digital gain {found.digital_gain:g}: "
                f"{_line(found.fit)}, row noise {found.row_noise:.3f} DN"
            )
    else:
        points = [
            flat_pair_points(read_pixels(first), read_pixels(second), black)
            for first, second in flats
        ]
        fit = fit_noise(NoisePoints.join(points))
        rows.append({"fit": asdict(fit) | {"electrons_per_dn": fit.electrons_per_dn}})
        click.echo(_line(fit))
    if report is not None:
        write_json(report, {"noise": rows})


def _line(fit: Any) -> str:
    return (
        f"a = {fit.a:.4f} +- {fit.a_error:.4f} DN ({fit.electrons_per_dn:.4f} electrons per DN), "
        f"b = {fit.b:.3f} +- {fit.b_error:.3f} DN^2 from {fit.points} points"
    )


@click.command(cls=OneLineErrors)
@click.argument("session", type=_path)
@click.argument("out", type=_path)
@click.option("--dead-pixels", type=click.Choice(DEAD_PIXELS), default=_truth.dead_pixels,
              show_default=True)  # fmt: skip
@click.option("--dead-threshold", default=_truth.dead_threshold, show_default=True,
              help="Threshold 1, in standard deviations of the averaged frames.")  # fmt: skip
@click.option("--alignment", type=click.Choice(ALIGNMENTS), default=_truth.alignment,
              show_default=True)  # fmt: skip
@click.option("--light-threshold", default=_truth.light_threshold, show_default=True,
              help="Threshold 2, a share of the mean light.")  # fmt: skip
@click.option("--confidence", default=_truth.confidence, show_default=True)
@click.option("--clipping", type=click.Choice(CLIPPINGS), default=_truth.clipping,
              show_default=True)  # fmt: skip
@click.option("--most-shift", default=_truth.most_shift, show_default=True,
              help="Of a camera that stands still, in pixels.")  # fmt: skip
@click.option("--plain-mean", is_flag=True, help="The mean of all frames, no other step.")
@click.option("--exposure", type=click.Choice(EXPOSURES), default="corrected", show_default=True,
              help="Noise frames at the truth's exposure, or as they are.")  # fmt: skip
@click.option("--mend-noise", is_flag=True, help="Mend flawed pixels of the noise frames too.")
@click.option("--json", "report", type=_path, help="Also write the report's figures.")
def truth(
    session: Path,
    out: Path,
    plain_mean: bool,
    exposure: Any,
    mend_noise: bool,
    report: Path | None,
    **choices: Any,
) -> None:
    """Make truth images from SESSION's bursts, and a pair set of them and the noisy frames in OUT.

    OUT receives truth/SCENE.png, noise/SCENE/NNNN.png, pairs.csv, format.json and, in report/, a
    picture and the map of mended pixels per scene.
    """
    if report is not None:
        check_folder(report)
    settings = PLAIN_MEAN if plain_mean else _checked("truth", TruthSettings, **choices)
    found = read_session(session)
    if out.resolve() == session.resolve():
        raise ValueError(f"truth: OUT must not be SESSION itself, got {out}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"truth: OUT must be a folder, got {out}")
    scenes: list[dict[str, Any]] = []
    pairs: list[Pair] = []
    for scene in found.scenes:
        made = make_truth(scene, found.format, settings, progress=True)
        (out / "report").mkdir(parents=True, exist_ok=True)
        written = write_scene(
            out, scene, made, found.format, exposure, mend_noise, settings.most_shift, progress=True
        )
        pairs += written.pairs
        scenes.append(scene_figures(scene, made, found.format, written))
        write_pictures(out / "report", scene, made, found.format)
        click.echo(scene_line(scenes[-1]))
    write_format(out, found.format)
    if pairs:
        write_pairs(out, pairs)
    figures = {"settings": settings.model_dump(), **summary(scenes), "scenes": scenes}
    write_json(out / "report" / "report.json", figures)
    if report is not None:
        write_json(report, figures)
    click.echo(f"{len(scenes)} truth images, {len(pairs)} pairs: {out}")


def scene_line(figures: dict[str, Any]) -> str:
    """What the terminal says of a scene."""
    line = (
        f"{figures['scene']}: {figures['frames_kept']} of {figures['target_frames']} frames, "
        f"{figures['pixels_mended']} pixels mended, {figures['samples_replaced']} samples replaced"
    )
    if figures.get("psnr_db") is not None:
        plain = figures["psnr_plain_mean_db"]
        line += f", {figures['psnr_db']:.2f} dB (plain mean {plain:.2f} dB)"
    return line
