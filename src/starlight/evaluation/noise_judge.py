"""Noise models beside real noise and beside each other, by the measures of `evaluation.noise`.

A noise model is a function (truth [H, W, C], analog gain, digital gain, seed) -> noise image, both
floating with white = 1; noise images are rounded and clipped as files are. Loads no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starlight.evaluation.noise import (
    AKLD_SAMPLES,
    HISTOGRAM_EDGES,
    LAGS,
    Correlation,
    Image,
    correlation,
    histogram,
    histogram_kl,
    local_divergences,
    variance_by_intensity,
)

NoiseModel = Callable[[Image, float, float, int], Image]
SECOND_FRAME = "second real frame"


@dataclass(frozen=True)
class RealPair:
    """A truth image, its real noise image, and another real one of the same gains where known."""

    truth: Image
    noisy: Image
    analog_gain: float
    digital_gain: float
    again: Image | None = None


@dataclass(frozen=True)
class Judgement:
    """Figures of one noise model over real pairs; of the real noise itself AKLD and KL are None.

    akld, kl: mean over pairs and over gains; *_by_gain: the same per (analog, digital) gain.
    akld_mean_variance: AKLD with the samples' local variances averaged before the ratio is taken.
    variances: [C, 16], see `variance_by_intensity`; variance_error: root mean square of the natural
    logarithm of its ratio to the real one. correlation_error: largest difference of a coefficient
    (spatial, between channels) to the real one. mean: mean residual, white = 1.
    """

    akld: float | None
    akld_by_gain: dict[str, float]
    akld_mean_variance: float | None
    kl: float | None
    kl_by_gain: dict[str, float]
    variances: NDArray[np.float64]
    variance_error: float
    correlation: Correlation
    correlation_error: tuple[float, float]
    mean: float

    def to_json(self) -> dict[str, Any]:
        return {
            "akld": self.akld,
            "akld_mean_variance": self.akld_mean_variance,
            "akld_by_gain": self.akld_by_gain,
            "kl": self.kl,
            "kl_by_gain": self.kl_by_gain,
            "variance_by_intensity": [
                [None if np.isnan(value) else float(value) for value in row]
                for row in self.variances
            ],
            "variance_error": self.variance_error,
            "spatial_correlation": {
                f"{dy},{dx}": value
                for (dy, dx), value in zip(LAGS, self.correlation.spatial, strict=True)
            },
            "channel_correlation": self.correlation.channels.tolist(),
            "correlation_error": {
                "spatial": self.correlation_error[0],
                "channels": self.correlation_error[1],
            },
            "mean": self.mean,
        }


def judge(
    pairs: Sequence[RealPair],
    models: Mapping[str, NoiseModel],
    samples: int = AKLD_SAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Judgement]:
    """Judge noise models on pairs that none of them was fitted on.

    AKLD takes `samples` images of a model per pair, the other figures the first of them. Beside the
    models the result holds `real`, the real noise's own figures, and where pairs have another real
    frame SECOND_FRAME: what a perfect model would reach. Raises ValueError without a pair.
    """
    if not pairs:
        raise ValueError("noise judge: pairs must be at least one, got none")
    real: list[Image] = [pair.noisy - pair.truth for pair in pairs]
    reference = _Reference(
        [_gain_name(pair) for pair in pairs],
        [pair.truth for pair in pairs],
        real,
        variance_by_intensity(zip([pair.truth for pair in pairs], real, strict=True)),
        correlation(real),
    )
    result = {"real": reference.judge(real, None)}
    drawn: dict[str, NoiseModel | None] = dict(models)
    if all(pair.again is not None for pair in pairs):
        drawn[SECOND_FRAME] = None
    for name, model in drawn.items():
        first: list[Image] = []
        divergences: list[tuple[float, float]] = []
        for number, pair in enumerate(
            tqdm(pairs, desc=name, disable=None if progress else True, unit="pair")
        ):
            if model is None:
                assert pair.again is not None
                images = [pair.again]
            else:
                words = np.random.SeedSequence((seed, number)).generate_state(samples, np.uint64)
                images = [
                    model(pair.truth, pair.analog_gain, pair.digital_gain, int(word >> 1))
                    for word in words
                ]
            first.append(images[0] - pair.truth)
            divergences.append(local_divergences(pair.truth, pair.noisy, images))
        result[name] = reference.judge(first, divergences)
    return result


@dataclass(frozen=True)
class _Reference:
    """The real residuals that models are compared with."""

    gains: list[str]
    truths: list[Image]
    residuals: list[Image]
    variances: NDArray[np.float64]
    correlation: Correlation

    def judge(
        self, residuals: list[Image], divergences: list[tuple[float, float]] | None
    ) -> Judgement:
        members: dict[str, list[int]] = {}
        for index, name in enumerate(self.gains):
            members.setdefault(name, []).append(index)
        akld_by_gain, kl_by_gain = {}, {}
        if divergences is not None:
            for name, indices in members.items():
                akld_by_gain[name] = float(np.mean([divergences[i][0] for i in indices]))
                kl_by_gain[name] = histogram_kl(
                    histogram(self.residuals[i] for i in indices),
                    histogram(residuals[i] for i in indices),
                )
        variances = variance_by_intensity(zip(self.truths, residuals, strict=True))
        # A saturated bin has no variance: half a level squared keeps its logarithm finite.
        floor = 0.25 / 255.0**2
        logs = np.log(np.maximum(variances, floor) / np.maximum(self.variances, floor))
        found = correlation(residuals)
        return Judgement(
            akld=None if divergences is None else float(np.mean([d for d, _ in divergences])),
            akld_mean_variance=(
                None if divergences is None else float(np.mean([d for _, d in divergences]))
            ),
            akld_by_gain=akld_by_gain,
            kl=None if divergences is None else float(np.mean(list(kl_by_gain.values()))),
            kl_by_gain=kl_by_gain,
            variances=variances,
            variance_error=float(np.sqrt(np.nanmean(np.square(logs)))),
            correlation=found,
            correlation_error=(
                float(np.abs(np.subtract(found.spatial, self.correlation.spatial)).max()),
                float(np.abs(found.channels - self.correlation.channels).max()),
            ),
            mean=float(np.mean([residual.mean() for residual in residuals])),
        )


def table(judgements: Mapping[str, Judgement]) -> str:
    """The figures as aligned text, a line per model."""
    width = max(len(name) for name in judgements)
    lines = [
        f"{'noise':{width}} {'AKLD':>7} {'KL':>7} {'variance':>8} {'corr 0,1':>8} {'corr 1,0':>8} "
        f"{'corr 0,16':>9} {'spatial':>8} {'channels':>8}"
    ]
    for name, found in judgements.items():
        figures = ["" if value is None else f"{value:.4f}" for value in (found.akld, found.kl)]
        spatial = dict(zip(LAGS, found.correlation.spatial, strict=True))
        lines.append(
            f"{name:{width}} {figures[0]:>7} {figures[1]:>7} {found.variance_error:8.3f} "
            f"{spatial[0, 1]:8.3f} {spatial[1, 0]:8.3f} {spatial[0, 16]:9.3f} "
            f"{found.correlation_error[0]:8.3f} {found.correlation_error[1]:8.3f}"
        )
    return "\n".join(lines)


def definitions() -> dict[str, Any]:
    """The constants behind the figures, for reports."""
    inner = HISTOGRAM_EDGES[1:-1]
    return {
        "akld_samples": AKLD_SAMPLES,
        "histogram_bins": len(HISTOGRAM_EDGES) - 1,
        "histogram_inner_edges": [float(inner[0]), float(inner[-1])],
    }


def _gain_name(pair: RealPair) -> str:
    """Gains to the nearest sixth of an octave, `analog x digital`."""
    analog, digital = (
        2.0 ** (round(6.0 * math.log2(gain)) / 6.0)
        for gain in (pair.analog_gain, pair.digital_gain)
    )
    return f"{analog:.3g} x {digital:.3g}"
