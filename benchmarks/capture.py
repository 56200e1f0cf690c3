"""What each step and Choice of the truth image brings: `python -m benchmarks.capture`.

A simulated camera knows the truth, the flaws and the noise parameters; the steps are measured
against them. Sessions are files in the run folder: the same command takes them up again.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from benchmarks.raw_frames import SensorGain, sensor_gains
from benchmarks.tables import check_block, markdown_table, write_block
from starlight.capture.camera import CameraConfig
from starlight.capture.estimate import estimate_noise
from starlight.capture.report import scene_figures, summary
from starlight.capture.session import Session, read_session
from starlight.capture.simulate import SimulationSettings, simulate_session
from starlight.capture.truth import PLAIN_MEAN, TruthSettings, make_truth
from starlight.denoise.images import write_image
from starlight.evaluation.photographs import evaluation_photographs, training_photographs
from starlight.noise.profiles import CameraProfile

DOCUMENT = ROOT / "docs" / "CAPTURE.md"
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What every case needs; sessions lie in `out`."""

    out: Path
    data: Path
    scenes: int
    frames: int
    memory_size: tuple[int, int]

    def session(self, name: str, **settings: Any) -> Session:
        """The session of that name, simulated unless it is there with all its tables."""
        config = settings.pop("config", None) or CameraConfig()
        chosen = SimulationSettings(scenes=self.scenes, frames=self.frames, noisy=0, **settings)
        identity = f"{self.data}\n{chosen.model_dump_json()}\n{config.model_dump_json()}\n"
        folder, stamp = self.out / name, self.out / f"{name}.txt"
        if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == identity):
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            simulate_session(self.data, folder, chosen, config, progress=True)
            stamp.write_text(identity, encoding="utf-8")
        return read_session(folder)


def measure(session: Session, settings: TruthSettings) -> Row:
    """Means over the scenes of a session; {"refused": why} where a Choice does not fit."""
    rows = []
    for scene in session.scenes:
        try:
            found = make_truth(scene, session.format, settings, progress=True)
        except ValueError as error:
            return {"refused": str(error)}
        rows.append(scene_figures(scene, found, session.format))
    kept = sum(row["frames_kept"] for row in rows) / len(rows)
    return {"frames_kept": kept, **summary(rows), "scenes": rows}


def case_steps(options: Options) -> tuple[str, dict[str, Any]]:
    """Each step in turn, the defaults of both commands."""
    row = measure(options.session("default"), TruthSettings())
    lines = []
    for scene in row["scenes"]:
        scores = scene["dead_pixels"]
        lines.append(
            [
                scene["scene"],
                *(f"{step['psnr_db']:.2f}" for step in scene["steps"]),
                f"{scene['psnr_db'] - scene['psnr_plain_mean_db']:+.2f}",
                f"{scores['real']} ({scores['above_6_sigma']})",
                f"{scores['precision']:.4f}",
                f"{scores['recall_above_6_sigma']:.4f}",
            ]
        )
    steps = [step["step"].replace("_", " ") for step in row["scenes"][0]["steps"]]
    titles = (
        "scene", *(f"{steps[0]}, dB", *(f"+ {step}, dB" for step in steps[1:])), "gain, dB",
        "flaws (above 6 sigma)", "precision", "recall",
    )  # fmt: skip
    return markdown_table(titles, lines), row


@dataclass(frozen=True)
class Comparison:
    """A session and the changes from the defaults that are measured on it."""

    simulation: dict[str, Any]
    changes: tuple[dict[str, str], ...]


COMPARISONS = {
    "default": Comparison(
        {},
        (
            {"dead_pixels": "none"},
            {"dead_pixels": "dark_outlier"},
            {"dead_pixels": "lit_outlier"},
            {"dead_pixels": "literal"},
            {"alignment": "none"},
            {"alignment": "threshold"},
            {"alignment": "confidence"},
            {"clipping": "none"},
            {"clipping": "censored"},
        ),
    ),
    "flicker": Comparison(
        {"flicker": 0.03},
        ({"alignment": "none"}, {"alignment": "threshold"}, {"alignment": "confidence"}),
    ),
    "highlights": Comparison({"highlights": 0.1}, ({"clipping": "none"}, {"clipping": "censored"})),
    "isp": Comparison(
        {"config": CameraConfig(isp=True)},
        ({"dead_pixels": "none"}, {"clipping": "none"}, {"clipping": "censored"}),
    ),
}


def compare(name: str, options: Options) -> tuple[str, dict[str, Any]]:
    """The plain mean, the defaults, and one change from the defaults each."""
    compared = COMPARISONS[name]
    session = options.session(name, **compared.simulation)
    chosen = {"plain mean": PLAIN_MEAN, "defaults": TruthSettings()}
    for change in compared.changes:
        label = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in change.items())
        chosen[label] = TruthSettings(**change)  # type: ignore[arg-type]
    rows = [{"choice": label, **measure(session, made)} for label, made in chosen.items()]
    titles = ("Choice", "PSNR, dB", "gain, dB", "precision", "recall", "frames kept")
    return markdown_table(titles, [[row["choice"], *_mode_cells(row)] for row in rows]), {
        "rows": rows
    }


def _mode_cells(row: Row) -> list[str]:
    if "refused" in row:
        return ["refused", "", "", "", ""]

    def share(name: str) -> str:
        return f"{row[name]:.4f}" if name in row else ""

    return [
        f"{row['psnr_db']:.2f}",
        # Rounded first: no negative zero.
        f"{round(row['psnr_db'] - row['psnr_plain_mean_db'], 2) + 0.0:+.2f}",
        share("dead_pixel_precision"),
        share("dead_pixel_recall_above_6_sigma"),
        f"{row['frames_kept']:.1f}",
    ]


def case_noise(options: Options) -> tuple[str, dict[str, Any]]:
    """Noise parameters estimated from sessions against those simulated."""
    lines, rows = [], []
    options = replace(options, scenes=1)
    for profile, gain in (
        ("imx385", 1.0), ("imx385", 2.0), ("imx385", 4.0), ("imx385", 8.0), ("imx385", 16.0),
    ):  # fmt: skip
        config = CameraConfig(profile=profile)
        session = options.session(f"noise_{profile}_{gain:g}", config=config, analog_gain=gain)
        (found,) = estimate_noise(session, progress=True)
        a, b = CameraProfile.load(profile).at_analog_gain(gain)
        rows.append({"profile": profile, "analog_gain": gain, "a": a, "b": b, **asdict(found)})
        row_noise = config.row_noise * b**0.5
        lines.append(
            [
                profile, f"{gain:g}",
                f"{a:.4f}", f"{found.fit.a:.4f}", f"{100 * (found.fit.a / a - 1):+.2f} %",
                f"{b:.3f}", f"{found.fit.b:.3f}", f"{100 * (found.fit.b / b - 1):+.2f} %",
                f"{row_noise:.3f}", f"{found.row_noise:.3f}",
            ]
        )  # fmt: skip
    titles = (
        "sensor", "gain", "a", "estimated", "off", "b", "estimated", "off", "row noise, DN",
        "estimated",
    )  # fmt: skip
    return markdown_table(titles, lines), {"rows": rows}


def case_sensor(options: Options) -> tuple[str, dict[str, Any]]:
    """A real sensor's flat pairs, where msfc-ccd is installed."""
    found: list[SensorGain] = sensor_gains()
    if not found:
        text = "no frames: pip install --no-deps msfc-ccd, which carries them"
        return text, {"rows": []}
    lines = [
        [
            row.tap, f"{row.signal_dn:.0f}", f"{row.a:.4f} +- {row.a_error:.4f}",
            f"{row.electrons_per_dn:.2f}", f"{row.read_noise_dn:.2f}",
            f"{row.read_noise_dn * row.electrons_per_dn:.1f}",
        ]
        for row in found
    ]  # fmt: skip
    titles = ("tap", "signal, DN", "a, DN", "electrons per DN", "read noise, DN", "electrons")
    return markdown_table(titles, lines), {"rows": [asdict(row) for row in found]}


def case_memory(options: Options) -> tuple[str, dict[str, Any]]:
    """Peak memory of `starlight truth` with few and with many frames of one size."""
    height, width = options.memory_size
    source = options.out / "memory_photograph"
    source.mkdir(parents=True, exist_ok=True)
    import numpy as np

    image = next(iter(evaluation_photographs().values()))
    tiled = np.tile(image, (height // image.shape[0] + 1, width // image.shape[1] + 1, 1))
    write_image(source / "large.png", tiled[:height, :width])
    settings = SimulationSettings(frames=12, dark=12, noisy=0)
    folder = options.out / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    simulate_session(source, folder, settings, progress=True)
    lines, rows = [], []
    for count in (12, 200):
        session = _linked(folder, options.out / f"memory_{count}", count)
        seconds, peak = _run_truth(session, options.out / f"memory_{count}_truth")
        rows.append({"frames": count, "height": height, "width": width, "peak_mb": peak,
                     "seconds": seconds})  # fmt: skip
        lines.append([f"{width} x {height}", str(count), f"{peak:.0f}"])
        shutil.rmtree(session)
    shutil.rmtree(folder)
    return markdown_table(("frame", "frames", "peak, MB"), lines), {"rows": rows}


def _linked(folder: Path, out: Path, count: int) -> Path:
    """A session of `count` target frames, which are links to those of another."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out, copy_function=os.link)
    table = (out / "metadata.csv").read_text(encoding="utf-8").splitlines()
    first = next(line for line in table if ",target," in line)
    for number in range(12, count):
        name = f"large/target/{number:04d}.png"
        os.link(out / f"large/target/{number % 12:04d}.png", out / name)
        table.append(first.replace("large/target/0000.png", name))
    (out / "metadata.csv").unlink()  # a link: writing would change the other
    (out / "metadata.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    return out


def _run_truth(session: Path, out: Path) -> tuple[float, float]:
    """(seconds, peak resident MB) of `starlight truth` in a process of its own."""
    import time

    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    arguments = [sys.executable, "-m", "starlight", "truth", str(session), str(out)]
    child = os.posix_spawn(sys.executable, arguments, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    shutil.rmtree(out, ignore_errors=True)
    if status != 0:
        raise ValueError(f"capture: starlight truth must end well, got status {status}")
    return seconds, usage.ru_maxrss / 1024.0


CASES: dict[str, Callable[[Options], tuple[str, dict[str, Any]]]] = {
    "steps": case_steps,
    **{name: partial(compare, name) for name in COMPARISONS},
    "noise": case_noise,
    "sensor": case_sensor,
    "memory": case_memory,
}


@click.command(
    "capture",
    cls=Benchmark,
    cases=tuple(CASES),
    quick={
        "out": "runs/capture-quick",
        "scenes": 1,
        "frames": 24,
        "memory_size": (300, 400),
        "only": ("steps", "sensor", "memory"),
    },
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs/capture",
    show_default=True,
    help="Run folder; sessions in it are taken up again.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of photographs.  [default: scikit-image's]",
)
@click.option("--scenes", type=click.IntRange(1), default=3, show_default=True)
@click.option("--frames", type=click.IntRange(2), default=200, show_default=True)
@click.option(
    "--memory-size",
    type=(int, int),
    default=(3000, 4000),
    show_default=True,
    help="Height and width of the frames of case memory.",
)
@click.option("--write-docs", is_flag=True, help="Put the tables into docs/CAPTURE.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    out: Path,
    data: Path | None,
    write_docs: bool,
    **options: Any,
) -> dict[str, Any]:
    """Steps and Choices of the truth image against a simulated camera's known truth.

    Takes about a quarter of an hour on one core, most of it for 12-megapixel frames of case memory.
    """
    if write_docs:
        for case in cases:
            check_block(DOCUMENT, case)
    if data is None:
        data = out / "photographs"
        data.mkdir(parents=True, exist_ok=True)
        for name, image in (training_photographs() | evaluation_photographs()).items():
            write_image(data / f"{name}.png", image)
    chosen = Options(out=out, data=data, **options)
    figures: dict[str, Any] = {"scenes": chosen.scenes, "frames": chosen.frames}
    for case in cases:
        table, figures[case] = CASES[case](chosen)
        click.echo(f"\n{case}\n{table}")
        if write_docs:
            write_block(DOCUMENT, case, table)
            click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return figures


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.capture")
