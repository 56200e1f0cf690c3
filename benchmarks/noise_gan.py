"""The noise GAN on a simulated camera, held-out scenes and gains: `python -m benchmarks.noise_gan`.

Every stage is a folder under `--work` and is made once: photographs cut to squares, capture
sessions of a camera with row noise, demosaicing and a tone curve, pair sets from them, the fit,
the judgement. The same command goes on where it stopped.
"""

import json
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from starlight.capture.camera import CameraConfig, DefectRates
from starlight.capture.simulate import SimulationSettings, simulate_session
from starlight.denoise.images import list_images, read_image, write_image
from starlight.evaluation.photographs import middle
from starlight.files import write_json
from starlight.noise.pairs import Pair, read_pairs, write_pairs

# The camera's exposure follows the light in thirds of a stop: light 200 / 2^(k / 3) is shown with
# the total gain 2^(k / 3). Analog gain ends at 16, the rest is digital.
LUX = 200.0
TRAINING_STOPS = range(3, 16)
HELD_OUT_STOPS = (5, 8, 11, 14)
SIDE = 320  # of the photographs; the camera's images are half as large
CAMERA = CameraConfig(
    isp=True, isp_scale=2, tone="raspberrypi", defects=DefectRates(hot=0.0, stuck_low=0.0)
)
FRAMES_PER_GAIN = 2


def lux_of(thirds: float) -> float:
    return LUX / 2.0 ** (thirds / 3.0)


def cut_scenes(photographs: Path, work: Path, training: int, held_out: int, seed: int) -> None:
    """Middle squares of photographs drawn at random, in work/clean/{training,held_out}."""
    names = list_images(photographs)
    if len(names) < training + held_out:
        raise ValueError(
            f"noise GAN benchmark: photographs must be at least {training + held_out}, "
            f"got {len(names)} in {photographs}"
        )
    order = np.random.default_rng(seed).permutation(len(names))[: training + held_out]
    for number, index in enumerate(order):
        folder = work / "clean" / ("training" if number < training else "held_out")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = middle(read_image(names[index]), SIDE)
        write_image(folder / f"{names[index].stem}.png", pixels)


def capture(clean: Path, out: Path, settings: dict[str, Any]) -> None:
    """A session of all photographs of a folder, and the pair set of `starlight truth`."""
    if (out / "pairs" / "pairs.csv").exists():
        return
    if out.exists():
        shutil.rmtree(out)  # half a session
    out.mkdir(parents=True)
    scenes = len(list_images(clean))
    simulate_session(
        clean,
        out / "session",
        SimulationSettings(scenes=scenes, dark=0, **settings),
        CAMERA,
        progress=True,
    )
    starlight("truth", out / "session", out / "pairs", "--dead-pixels", "none")


def starlight(*arguments: object) -> int:
    """Run the command line; 0 and 4 (budget spent) are results, all else an error."""
    done = subprocess.run([sys.executable, "-m", "starlight", *map(str, arguments)], check=False)
    if done.returncode not in (0, 4):
        raise SystemExit(done.returncode)
    return done.returncode


def thirds_of(pair: Pair) -> int:
    """The gain's number of thirds of a stop."""
    return round(3.0 * float(np.log2(pair.analog_gain * pair.digital_gain)))


def make_pairs(work: Path, frames: int, noisy: int, seed: int) -> tuple[Path, Path]:
    """Pair sets (training, held out), whose scenes and gains have nothing in common."""
    training, held_out = work / "training", work / "held_out"
    light = {
        "least_lux": lux_of(TRAINING_STOPS[-1] + 0.5),
        "most_lux": lux_of(TRAINING_STOPS[0] - 0.5),
    }
    capture(
        work / "clean" / "training",
        training,
        {"frames": frames, "noisy": noisy, "seed": seed, **light},
    )
    found = read_pairs(training / "pairs").pairs
    kept = [pair for pair in found if thirds_of(pair) not in HELD_OUT_STOPS]
    write_pairs(training / "pairs", kept)
    sets = []
    for stop in HELD_OUT_STOPS:
        folder = held_out / f"gain_{stop:02d}"
        light = {"least_lux": lux_of(stop), "most_lux": lux_of(stop)}
        capture(
            work / "clean" / "held_out",
            folder,
            {"frames": frames, "noisy": FRAMES_PER_GAIN, "seed": seed + 1 + stop, **light},
        )
        sets.append(read_pairs(folder / "pairs").pairs)
    write_pairs(held_out, chain.from_iterable(sets))
    return training / "pairs", held_out


def measure(
    cases: tuple[str, ...],
    machine: Machine,
    photographs: Path,
    work: Path,
    scenes: int,
    held_out: int,
    frames: int,
    noisy: int,
    samples: int,
    seed: int,
    fit: str,
) -> dict[str, Any]:
    """Make the data, fit, judge."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "clean" / "held_out").exists():
        cut_scenes(photographs, work, scenes, held_out, seed)
    training, judged = make_pairs(work, frames, noisy, seed)
    result: dict[str, Any] = {}
    if "fit" in cases:
        run = work / "fit"
        resume = ["--resume"] if (run / "checkpoint.pt").exists() else []
        starlight("noise", "fit", training, "--out", run, "--seed", seed, *fit.split(), *resume)
        result["fit"] = json.loads((run / "fit.json").read_text())
    if "judge" in cases:
        report = work / "judgement.json"
        figure = work / "judgement.png"
        starlight(
            *("noise", "judge", judged, "--model", work / "fit", "--samples", samples),
            *("--json", report, "--figure", figure),
        )
        result["judge"] = json.loads(report.read_text())
    write_json(work / "noise_gan.json", {"machine": machine.__dict__, **result})
    return result


_path = click.Path(path_type=Path)


@click.command(
    "noise_gan",
    cls=Benchmark,
    cases=("fit", "judge"),
    quick={
        "scenes": 2,
        "held_out": 1,
        "frames": 2,
        "noisy": 4,
        "samples": 1,
        "fit": "--width 8 --crop 32 --batch 2 --steps 2",
    },
)
@click.option("--photographs", type=_path, required=True, help="Folder, each at least 320 x 320.")
@click.option("--work", type=_path, default=Path("runs/noise_gan"), show_default=True)
@click.option("--scenes", default=48, show_default=True)
@click.option("--held-out", default=12, show_default=True, help="Scenes to judge on.")
@click.option("--frames", default=50, show_default=True, help="Averaged for a truth image.")
@click.option("--noisy", default=26, show_default=True, help="Noise images per training scene.")
@click.option("--samples", default=50, show_default=True, help="Of a model per pair, for AKLD.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--fit",
    default="--width 8 --crop 32 --batch 12 --precision bfloat16 --steps 6000 "
    "--fix-statistics 0.15 --held-out 4 --sheet-steps 500 --threads 1",
    show_default=True,
    help="Options of `starlight noise fit`.",
)
def main(**options: Any) -> dict[str, Any]:
    """Fit the noise GAN to a simulated camera and judge it on held-out scenes and gains."""
    return measure(**options)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.noise_gan")
