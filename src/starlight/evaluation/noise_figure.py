"""The picture of a noise judgement: variance over intensity, correlation, divergence by gain."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from starlight.evaluation.noise import INTENSITY_BINS, LAGS
from starlight.evaluation.noise_judge import Judgement

_CHANNELS = ("red", "green", "blue")


def draw(judgements: Mapping[str, Judgement]) -> bytes:
    """A PNG of what `judge` returned."""
    figure = Figure(figsize=(13.0, 7.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False).flat
    centres = (np.arange(INTENSITY_BINS) + 0.5) / INTENSITY_BINS
    axes = top.subplots(1, len(_CHANNELS), sharey=True)
    for channel, (name, plot) in enumerate(zip(_CHANNELS, axes, strict=True)):
        for label, found in judgements.items():
            style = {"color": "black", "linewidth": 2.5} if label == "real" else {}
            plot.plot(centres, 255.0 * np.sqrt(found.variances[channel]), label=label, **style)
        plot.set(title=name, xlabel="truth (white = 1)")
    axes[0].set_ylabel("noise deviation, 8-bit levels")
    axes[0].set_ylim(bottom=0.0)
    axes[0].legend(fontsize="small")
    spatial, divergence = bottom.subplots(1, 2)
    width = 0.8 / len(judgements)
    compared = {name: found for name, found in judgements.items() if found.akld is not None}
    for number, (label, found) in enumerate(judgements.items()):
        colour = "black" if label == "real" else None
        places = np.arange(len(LAGS)) + number * width
        spatial.bar(places, found.correlation.spatial, width, label=label, color=colour)
    spatial.set(title="correlation with itself, shifted by (rows, columns)")
    spatial.set_xticks(np.arange(len(LAGS)) + 0.4, [f"{dy}, {dx}" for dy, dx in LAGS])
    for number, (label, found) in enumerate(compared.items()):
        gains = list(found.akld_by_gain)
        places = np.arange(len(gains)) + number * width
        divergence.bar(places, list(found.akld_by_gain.values()), width, label=label)
        divergence.set_xticks(np.arange(len(gains)) + 0.4, gains, rotation=30, fontsize="small")
    divergence.set(title="AKLD by gain (analog x digital)")
    divergence.set_ylim(top=1.25 * divergence.get_ylim()[1])  # room for the legend
    divergence.legend(fontsize="small", ncols=2, loc="upper right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
