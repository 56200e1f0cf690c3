"""What to train on: captured noise, generated noise, both, or Poisson-Gaussian noise.

`python -m benchmarks.data_mix`: one network and one small budget, four training sets, PSNR on
pairs of a simulated camera whose scenes and gains no training saw. Everything lies in the run
folder: the same command goes on where it stopped and makes nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from benchmarks.tables import check_block, markdown_table, write_block

DOCUMENT = ROOT / "docs" / "TRAINING.md"
BLOCK = "data-mix"
CASES: Final = ("captured", "generated", "both", "poisson_gaussian")
TRAINING_GAINS: Final = [(a, d) for a in (1.0, 2.0, 4.0, 8.0, 16.0) for d in (1.0, 2.0)]
TEST_GAINS: Final = [(a, d) for a in (1.5, 3.0, 6.0, 12.0) for d in (1.0, 1.5)]
LEARNING_RATE: Final = 2e-3


def training_sections(case: str, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The [[data]] sections of a case."""
    names = ("captured", "generated") if case == "both" else (case,)
    return [{"pairs": str(folders[name])} for name in names]


def prepare(
    cases: Sequence[str],
    out: Path,
    photographs: Sequence[Path],
    *,
    generator: Path | None,
    captured: Path | None,
    test: Path | None,
    scenes: int,
    third: int,
    gan_steps: int,
    crop: int,
) -> dict[str, Path]:
    """The pair sets, made where they are missing: captured, test, and those that cases need.

    The first photographs are the camera's scenes, the next ones its held-out scenes, the rest the
    clean images on which noise is generated. Poisson-Gaussian noise has variance a x + b in the
    images' own units, calibrated on the captured pairs per gain; it gets the same clean images and
    gains as the generator.
    """
    from benchmarks.simulated_pairs import simulate_pairs
    from starlight.denoise.images import read_image
    from starlight.noise.baseline import VarianceModel
    from starlight.noise.gan.config import FitSettings, GanConfig
    from starlight.noise.gan.data import PairImages
    from starlight.noise.gan.fit import NoiseFit
    from starlight.noise.gan.generate import NoiseGenerator, generate_set
    from starlight.noise.pairs import FILE_NAME, read_pairs

    held_out = max(1, scenes // 4)
    least = scenes + held_out + third
    if len(photographs) < least:
        raise ValueError(
            f"data_mix: photographs must be at least {least}, got {len(photographs)}; "
            "choose fewer --scenes or --third"
        )
    folders = {
        "captured": captured
        or simulate_pairs(out / "captured", photographs[:scenes], TRAINING_GAINS, 2, crop),
        "test": test
        or simulate_pairs(
            out / "test", photographs[scenes : scenes + held_out], TEST_GAINS, 1, crop, seed=1
        ),
    }
    if not {"generated", "both", "poisson_gaussian"} & set(cases):
        return folders
    known = PairImages(read_pairs(folders["captured"]).pairs)
    if generator is None and {"generated", "both"} & set(cases):
        generator = out / "generator"
        settings = FitSettings(
            steps=gan_steps, precision="bfloat16", learning_rate=1e-3, discriminator_rate=6e-4,
            ema=0.99, sheet_steps=max(1, gan_steps // 10),
        )  # fmt: skip
        fit = NoiseFit(known, GanConfig(width=8, crop=64), settings, generator)
        if (generator / "checkpoint.pt").is_file():
            fit.resume()
        if fit.run() == "interrupted":
            raise SystemExit(130)
    clean = photographs[scenes + held_out : scenes + held_out + third]
    images = [(path.stem, read_image(path)[:crop, :crop]) for path in clean]
    if {"generated", "both"} & set(cases):
        assert generator is not None
        folders["generated"] = out / "generated"
        if not (folders["generated"] / FILE_NAME).is_file():
            generate_set(NoiseGenerator.load(generator), images, folders["generated"], 4)
    if "poisson_gaussian" in cases:
        folders["poisson_gaussian"] = out / "poisson_gaussian"
        if not (folders["poisson_gaussian"] / FILE_NAME).is_file():
            drawn = [gains for gains, _, _ in known]
            model = PoissonGaussian(VarianceModel.fit(known), drawn)
            generate_set(model, images, folders["poisson_gaussian"], 4)  # type: ignore[arg-type]
    return folders


class PoissonGaussian:
    """The calibrated baseline with the face of a `NoiseGenerator`: gains, and `generate`."""

    def __init__(self, model: Any, gains: Sequence[tuple[float, float]]) -> None:
        self.model = model
        self.gains = gains

    def generate(self, truth: Any, analog_gain: float, digital_gain: float, seed: int) -> Any:
        import numpy as np

        white = np.iinfo(truth.dtype).max
        random = np.random.default_rng(seed)
        noisy = self.model.sample(truth / white, analog_gain, digital_gain, random)
        return np.clip(np.floor(noisy * white + 0.5), 0, white).astype(truth.dtype)


def train_and_measure(
    sections: list[dict[str, Any]],
    test: Path,
    folder: Path,
    seed: int,
    *,
    steps: int,
    batch: int,
    patch: int,
    width: int,
    levels: int,
) -> dict[str, Any]:
    """One training and its PSNR in dB on the test pairs: the mean, and by gains."""
    import numpy as np

    from starlight.denoise.denoiser import Denoiser
    from starlight.evaluation.metrics import psnr
    from starlight.images import read_pixels
    from starlight.noise.pairs import read_pairs
    from starlight.training.command import run_training
    from starlight.training.config import parse_config

    config = parse_config(
        {
            "seed": seed,
            "threads": 1,
            "device": "cpu",
            "network": {"width": width, "levels": levels},
            "training": {
                "schedule": "cosine", "steps": steps, "batch": batch, "patch": patch,
                "learning_rate": LEARNING_RATE, "warmup": min(200, steps // 10),
            },
            "growth": {"check_every": max(1, steps // 4), "check_batches": 4},
            "data": sections,
        }
    )  # fmt: skip
    summary = run_training(config, folder, resume=True)
    if summary["end"] == "interrupted":
        raise SystemExit(summary["exit_code"])
    denoiser = Denoiser(folder / "weights.safetensors", threads=1)
    by_gain: dict[str, list[tuple[float, float]]] = {}
    for pair in read_pairs(test).pairs:
        truth, noise = read_pixels(pair.truth), read_pixels(pair.noise)
        scores = psnr(truth, noise), psnr(truth, denoiser.denoise(noise))
        by_gain.setdefault(f"{pair.analog_gain:g} x {pair.digital_gain:g}", []).append(scores)
    noisy, restored = np.mean([score for row in by_gain.values() for score in row], 0).tolist()
    return {
        "psnr": restored,
        "psnr_noisy": noisy,
        "by_gain": {gain: float(np.mean(row, 0)[1]) for gain, row in by_gain.items()},
        "seconds": summary["seconds"],
    }


_path = click.Path(path_type=Path)


@click.command(
    "data_mix",
    cls=Benchmark,
    cases=CASES,
    quick={
        "out": "runs/data-mix-quick", "scenes": 1, "third": 1, "gan_steps": 1, "crop": 64,
        "steps": 2, "batch": 1, "patch": 32, "width": 2, "levels": 1, "seeds": 1,
    },
)  # fmt: skip
@click.option("--out", type=_path, default="runs/data-mix", show_default=True, help="Run folder.")
@click.option("--data", type=_path, help="Folder of clean photographs.  [default: scikit-image's]")
@click.option("--scenes", type=click.IntRange(1), default=48, show_default=True)
@click.option("--third", type=click.IntRange(1), default=200, show_default=True)
@click.option("--captured", type=_path, help="A captured pair set, in place of a simulated one.")
@click.option("--test", type=_path, help="Held-out pairs, in place of simulated ones.")
@click.option("--generator", type=_path, help="Run folder of `noise fit` on the captured pairs.")
@click.option("--gan-steps", type=click.IntRange(1), default=4000, show_default=True)
@click.option("--crop", type=click.IntRange(16), default=256, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--patch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--width", type=click.IntRange(1), default=8, show_default=True)
@click.option("--levels", type=click.IntRange(1), default=2, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/TRAINING.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    out: Path,
    data: Path | None,
    seeds: int,
    write_docs: bool,
    captured: Path | None,
    test: Path | None,
    generator: Path | None,
    scenes: int,
    third: int,
    gan_steps: int,
    crop: int,
    **training: int,
) -> dict[str, Any]:
    """Training sets compared: PSNR after captured, generated, both, Poisson-Gaussian noise."""
    if write_docs:
        if cases != CASES:
            raise ValueError(f"data_mix: --write-docs must have all cases, got {', '.join(cases)}")
        check_block(DOCUMENT, BLOCK)
    folders = prepare(
        cases, out, shuffled(data),
        generator=generator, captured=captured, test=test, scenes=scenes, third=third,
        gan_steps=gan_steps, crop=crop,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for case in cases:
        results = [
            train_and_measure(
                training_sections(case, folders),
                folders["test"],
                out / f"{case}-{seed}",
                seed,
                **training,
            )
            for seed in range(seeds)
        ]
        rows.append({"case": case, "results": results})
        click.echo(f"{case}: {cells_of(rows[-1])[1]} dB")
    table = markdown_table(
        ("trained on", "PSNR, dB", "by seed", *rows[0]["results"][0]["by_gain"]),
        [cells_of(row) for row in rows],
    )
    click.echo(table)
    settings = {"scenes": scenes, "third": third, "crop": crop, "seeds": seeds, **training}
    if write_docs:
        write_block(DOCUMENT, BLOCK, f"{caption(rows, settings, folders)}\n\n{table}")
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"settings": settings, "rows": rows}


def shuffled(data: Path | None) -> list[Path]:
    """Photographs in an order that does not follow their names."""
    import numpy as np
    import skimage.data

    from starlight.denoise.images import list_images
    from starlight.evaluation.photographs import EVALUATION_NAMES, TRAINING_NAMES

    if data is None:
        folder = Path(skimage.data.__file__).parent
        paths = [folder / name for name in (*TRAINING_NAMES, *EVALUATION_NAMES)]
    else:
        paths = list_images(data)
    return [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]


def cells_of(row: dict[str, Any]) -> list[str]:
    """A row as it is printed: means over seeds."""
    results = row["results"]
    mean = sum(result["psnr"] for result in results) / len(results)
    gains = [
        sum(result["by_gain"][gain] for result in results) / len(results)
        for gain in results[0]["by_gain"]
    ]
    seeds = " ".join(f"{result['psnr']:.2f}" for result in results)
    return [row["case"], f"{mean:.2f}", seeds, *(f"{value:.2f}" for value in gains)]


def caption(rows: list[dict[str, Any]], settings: dict[str, Any], folders: dict[str, Path]) -> str:
    """What the figures stand on, in Markdown."""
    from starlight.noise.pairs import read_pairs

    counts = {name: len(read_pairs(folder).pairs) for name, folder in folders.items()}
    return (
        f"Width {settings['width']}, {settings['levels']} levels, {settings['steps']} steps of "
        f"{settings['batch']} patches {settings['patch']} x {settings['patch']}, mean over "
        f"{settings['seeds']} seeds. Noise images: {counts['captured']} captured, "
        f"{counts['generated']} generated and {counts['poisson_gaussian']} Poisson-Gaussian on "
        f"{settings['third']} other clean images. Measured on {counts['test']} held-out pairs, "
        f"{rows[0]['results'][0]['psnr_noisy']:.2f} dB when noisy; columns: analog x digital gain."
    )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.data_mix")
