"""The exposure of a noise frame against its truth, fitted on the frames themselves.

The truth is taken at 200 lux and the noise at 0.1 to 100: a pair makes sense only when both show
the same brightness. Recorded lux and gains are too coarse for that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from starlight.bayer import Float64
from starlight.capture.burst import clipped
from starlight.capture.clipping import censored_means
from starlight.capture.session import FrameFormat
from starlight.images import Pixels

_BINS = 64


def exposure_ratio(
    noisy: Pixels, truth: Float64, flawed: NDArray[np.bool_], format: FrameFormat
) -> float:
    """Light of a noisy frame over the truth's, both linear above black.

    noisy: readings; truth: float64 readings of the same shape; flawed: pixels to leave out.
    Pixels of like truth form bins; the light of a bin is that of its censored normal, so noise
    that is cut off at black or white does not bias it. The ratio is the slope of the least-squares
    line over bins, each weighted by its pixels over (truth + mean truth): between constant noise
    and shot noise. The line is free to miss the origin: in the dark, row noise shifts a whole frame
    by more than the light itself tells. Raises ValueError when the frame does not show the scene.
    """
    usable = ~flawed & (truth < format.white_level - 1e-9) & (truth > format.black_clip)
    light = format.to_linear(truth[usable])
    below, above = (end[usable] for end in clipped(noisy, format))
    samples = format.to_linear(noisy[usable])
    order = np.argsort(light, kind="stable")
    edges = np.linspace(0, order.size, min(_BINS, order.size) + 1).astype(int)[:-1]
    if order.size == 0:
        raise ValueError("exposure: truth must have pixels that are not clipped, got none")

    def over_bins(values: NDArray[np.float64] | NDArray[np.bool_]) -> Float64:
        return np.add.reduceat(values[order].astype(np.float64), edges)

    inside = ~(below | above)
    size, count = over_bins(np.ones(order.size)), over_bins(inside)
    total, squares = over_bins(samples * inside), over_bins(samples**2 * inside)
    low_count, high_count = over_bins(below), over_bins(above)
    truth_of_bin = over_bins(light) / size
    level = total / np.maximum(count, 1.0)
    varies = squares / np.maximum(count, 1.0) - level**2 > 1e-12
    # More than half at one end leaves the fit to extrapolate; there the bin does not tell.
    tells = (np.maximum(low_count, high_count) < 0.5 * size) & (truth_of_bin > 0.0)
    cut = tells & varies & (low_count + high_count > 0)
    if cut.any():
        level[cut] = censored_means(
            count[cut], total[cut], squares[cut], low_count[cut], high_count[cut],
            *(float(format.to_linear(np.array(end))) for end in (
                format.black_clip + 0.5, format.white_level - 0.5
            )),
        )  # fmt: skip
    weight = np.where(tells, size / (truth_of_bin + truth_of_bin.mean()), 0.0)
    if (told := int(tells.sum())) < 2 or np.ptp(truth_of_bin[tells]) <= 0.0:
        raise ValueError(
            "exposure: noisy frame must show two levels between black and white, got "
            f"{min(told, 1)}"
        )
    weight /= weight.sum()
    from_mean = truth_of_bin - float((weight * truth_of_bin).sum())
    ratio = float((weight * from_mean * level).sum() / (weight * from_mean**2).sum())
    if ratio <= 0.0:
        raise ValueError(
            f"exposure: noisy frame must grow brighter where its truth does, got a slope {ratio:g}"
        )
    return ratio


def corrected(noisy: NDArray[Any], ratio: float, format: FrameFormat) -> Float64:
    """The noisy frame's readings at the truth's exposure: its light divided by the ratio.

    float64, neither rounded nor clipped; black stays black.
    """
    return format.to_readings(format.to_linear(noisy) / ratio)
