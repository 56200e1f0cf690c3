"""What a run's denoisers are measured on, and the pictures that show it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt

from quant.report import Picture
from starlight.evaluation.suites import ImageScore, evaluate, mean_scores, noisy_input
from starlight.noise import NoiseCondition

UInt8Image = npt.NDArray[np.uint8]
Denoise = Callable[[UInt8Image], UInt8Image]

CONDITIONS: Final = tuple(
    NoiseCondition.parse(name)
    for name in ("sigma_5", "sigma_15", "sigma_25", "sigma_50", "iso_1600", "iso_6400", "iso_25600")
)
PICTURE_CONDITIONS: Final = ("sigma_25", "iso_25600")


@dataclass(frozen=True)
class Quality:
    """Evaluates one denoiser after the other on the same noisy 8-bit images."""

    photographs: Mapping[str, UInt8Image]
    seed: int

    def scores(self, denoise: Denoise, what: str) -> list[ImageScore]:
        """A score per condition and photograph, in the same order for every denoiser."""
        click.echo(f"evaluating {what}")
        return evaluate(denoise, self.photographs, CONDITIONS, seed=self.seed, progress=True)

    def pictures(self, float_model: Denoise, ptq: Denoise, qat: Denoise) -> list[Picture]:
        """The first photograph."""
        name = next(iter(self.photographs))
        return [
            self.picture(name, condition, float_model, ptq, qat) for condition in PICTURE_CONDITIONS
        ]

    def picture(
        self, name: str, condition: str, float_model: Denoise, ptq: Denoise, qat: Denoise
    ) -> Picture:
        clean = self.photographs[name]
        noisy = noisy_input(clean, name, NoiseCondition.parse(condition), seed=self.seed)
        return Picture(condition, name, clean, noisy, float_model(noisy), ptq(noisy), qat(noisy))


def worst_loss(
    exact: Sequence[ImageScore], integers: Sequence[ImageScore]
) -> tuple[str, str, float]:
    """Photograph, condition and dB of the largest loss against float; the first of equals.

    Both of `Quality.scores`. Negative when every one of them wins.
    """
    losses = [
        (one.image, one.condition, 0.0 if one.psnr == other.psnr else one.psnr - other.psnr)
        for one, other in zip(exact, integers, strict=True)
    ]
    return max(losses, key=lambda loss: loss[2])


def mean_psnr(scores: Mapping[str, Sequence[ImageScore]]) -> dict[str, dict[str, float]]:
    """Of series -> scores: "noisy" and each series -> condition -> mean PSNR in dB."""
    means = {series: mean_scores(found) for series, found in scores.items()}
    noisy = {name: row["psnr_noisy"] for name, row in next(iter(means.values())).items()}
    rows = {
        series: {name: row["psnr"] for name, row in conditions.items()}
        for series, conditions in means.items()
    }
    return {"noisy": noisy, **rows}


def psnr_table(psnr: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"{'PSNR, dB':<12}" + "".join(f"{name:>10}" for name in psnr)]
    for condition in psnr["float"]:
        figures = "".join(f"{psnr[name][condition]:>10.2f}" for name in psnr)
        lines.append(f"{condition:<12}{figures}")
    return "\n".join(lines)


def cost_lines(costs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line per schedule: what a frame costs on the chip."""
    for title, cost in costs.items():
        sram = "" if cost["sram_bytes"] is None else f"SRAM {cost['sram_bytes'] / 1024:.0f} KiB, "
        yield (
            f"{title}, {cost['width']}x{cost['height']}: {cost['milliseconds']:.2f} ms, {sram}"
            f"DRAM {cost['dram_bytes'] / 1e6:.1f} MB, {cost['millijoules']:.1f} mJ"
        )
