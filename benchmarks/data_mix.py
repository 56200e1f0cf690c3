"""What to train on: captured noise, generated noise, both, or Poisson-Gaussian noise.

`python -m benchmarks.data_mix`: one network and one small budget, four training sets, PSNR on the
held-out pairs of `benchmarks.noise_gan`: a simulated camera, scenes and gains that no training saw.
Pairs and generator are taken from that benchmark's folder: run it first. The same command goes on
where it stopped and makes nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
LEARNING_RATE: Final = 2e-3
PER_IMAGE: Final = 4  # noise images of a clean one


def training_sections(case: str, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The [[data]] sections of a case."""
    names = ("captured", "generated") if case == "both" else (case,)
    return [{"pairs": str(folders[name])} for name in names]


def prepare(
    cases: Sequence[str], out: Path, camera: Path, photographs: Path, third: int
) -> dict[str, Path]:
    """Name -> pair set; those of generated and Poisson-Gaussian noise are made where missing.

    camera: folder of the noise_gan benchmark. Noise is generated on `third` photographs of which
    the camera saw none. Poisson-Gaussian noise has variance a x + b in the images' own units,
    calibrated on the captured pairs per gain; it gets the same clean images and gains.
    """
    import numpy as np

    from benchmarks.noise_gan import SIDE
    from starlight.denoise.images import list_images, read_image
    from starlight.evaluation.photographs import middle
    from starlight.noise.gan.generate import NoiseGenerator, generate_set
    from starlight.noise.pair_images import PairImages
    from starlight.noise.pairs import FILE_NAME, read_pairs

    folders = {"captured": camera / "training" / "pairs", "test": camera / "held_out"}
    seen = {path.stem for path in (camera / "clean").rglob("*.png")}
    clean = [path for path in list_images(photographs) if path.stem not in seen]
    if len(clean) < third:
        raise ValueError(
            f"data_mix: photographs that the camera has not seen must be at least {third}, got "
            f"{len(clean)}; choose a smaller --third"
        )
    chosen = np.random.default_rng(1).permutation(len(clean))[:third]
    images = [clean[index] for index in chosen]
    known = PairImages(read_pairs(folders["captured"]).pairs)
    # White is at the top in 8 and in 16 bits.
    scale = np.uint8(1) if known.white == 255 else np.uint16(257)

    def add(name: str, model: Callable[[], Any]) -> None:
        folders[name] = out / name
        if not (folders[name] / FILE_NAME).is_file():
            truths = ((path.stem, middle(read_image(path), SIDE) * scale) for path in images)
            generate_set(model(), truths, folders[name], PER_IMAGE, progress=third)

    if {"generated", "both"} & set(cases):
        add("generated", lambda: NoiseGenerator.load(camera / "fit"))
    if "poisson_gaussian" in cases:
        add("poisson_gaussian", lambda: PoissonGaussian(known))
    return folders


class PoissonGaussian:
    """The calibrated baseline with a generator's face: the gains of the pairs, and `generate`."""

    def __init__(self, known: Any) -> None:
        from starlight.noise.baseline import VarianceModel

        self.model = VarianceModel.fit(known)
        self.gains = [(pair.analog_gain, pair.correcting_gain) for pair in known.pairs]

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
        truth, noise = (_unit(read_pixels(path)) for path in (pair.truth, pair.noise))
        restored = np.clip(denoiser.denoise(noise), 0.0, 1.0)
        scores = psnr(255 * truth, 255 * noise), psnr(255 * truth, 255 * restored)
        gain = f"{pair.analog_gain * pair.digital_gain:.1f}"
        by_gain.setdefault(gain, []).append(scores)
    noisy, mean = np.mean([score for row in by_gain.values() for score in row], 0).tolist()
    return {
        "psnr": mean,
        "psnr_noisy": noisy,
        "by_gain": {gain: float(np.mean(row, 0)[1]) for gain, row in by_gain.items()},
        "seconds": summary["seconds"],
    }


def _unit(pixels: Any) -> Any:
    """uint8 or uint16 -> float64 in 0..1."""
    import numpy as np

    return pixels / np.iinfo(pixels.dtype).max


_path = click.Path(path_type=Path)


@click.command(
    "data_mix",
    cls=Benchmark,
    cases=CASES,
    quick={
        "out": "runs/data-mix-quick", "third": 1,
        "steps": 2, "batch": 1, "patch": 32, "width": 2, "levels": 1, "seeds": 1,
    },
)  # fmt: skip
@click.option("--photographs", type=_path, required=True, help="Folder of clean photographs.")
@click.option("--out", type=_path, default="runs/data-mix", show_default=True, help="Run folder.")
@click.option(
    "--camera",
    type=_path,
    default="runs/noise_gan",
    show_default=True,
    help="Folder of the noise_gan benchmark.",
)
@click.option("--third", type=click.IntRange(1), default=200, show_default=True)
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
    photographs: Path,
    out: Path,
    camera: Path,
    third: int,
    seeds: int,
    write_docs: bool,
    **training: int,
) -> dict[str, Any]:
    """Training sets compared: PSNR after captured, generated, both, Poisson-Gaussian noise."""
    if write_docs:
        if cases != CASES:
            raise ValueError(f"data_mix: --write-docs must have all cases, got {', '.join(cases)}")
        check_block(DOCUMENT, BLOCK)
    folders = prepare(cases, out, camera, photographs, third)
    rows: list[dict[str, Any]] = [{"case": case, "results": []} for case in cases]
    # Seed by seed: stopped halfway, the first seed's comparison is complete.
    for seed in range(seeds):
        for row in rows:
            sections = training_sections(row["case"], folders)
            run = out / f"{row['case']}-{seed}"
            result = train_and_measure(sections, folders["test"], run, seed, **training)
            row["results"].append(result)
            click.echo(f"{row['case']}, seed {seed}: {result['psnr']:.2f} dB")
    table = markdown_table(
        ("trained on", "PSNR, dB", "by seed", *rows[0]["results"][0]["by_gain"]),
        [cells_of(row) for row in rows],
    )
    click.echo(table)
    settings = {"third": third, "seeds": seeds, **training}
    if write_docs:
        write_block(DOCUMENT, BLOCK, f"{caption(rows, settings, folders)}\n\n{table}")
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"settings": settings, "rows": rows}


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
        f"{settings['batch']} patches {settings['patch']} x {settings['patch']}; seeds: "
        f"{settings['seeds']}. Noise images: {counts['captured']} captured, "
        f"{counts['generated']} generated and {counts['poisson_gaussian']} Poisson-Gaussian on "
        f"{settings['third']} other clean images. Measured on {counts['test']} held-out pairs, "
        f"{rows[0]['results'][0]['psnr_noisy']:.2f} dB when noisy; columns: total gain."
    )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.data_mix")
