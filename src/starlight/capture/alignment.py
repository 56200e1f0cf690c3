"""Intensity alignment of a burst: frames whose light strays are dropped (SIDD, Abdelhamed 2018)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from starlight.bayer import Float64

Alignment = Literal["none", "threshold", "confidence", "both"]
ALIGNMENTS: tuple[str, ...] = get_args(Alignment)


def drop_reasons(
    levels: Float64, alignment: Alignment, threshold: float = 0.05, confidence: float = 0.999
) -> list[str | None]:
    """Why each frame is dropped; None for one that is kept.

    levels: mean light of each frame above black, float64 [F].
    threshold: drops |level - mean of levels| > threshold * mean of levels.
    confidence: drops what lies outside mean +- z s, z the normal quantile of that two-sided
        probability and s the standard deviation of the levels.
    `both` drops by either. Raises ValueError when nothing would be kept.
    """
    centre = float(levels.mean())
    spread = float(levels.std(ddof=1)) if len(levels) > 1 else 0.0
    reach = NormalDist().inv_cdf(0.5 + confidence / 2.0) * spread
    strayed: list[tuple[str, NDArray[np.bool_]]] = []
    # Rounding of the mean itself must not drop frames of exactly equal light.
    away = np.abs(levels - centre) - 1e-9 * abs(centre)
    if alignment in ("threshold", "both"):
        bound = threshold * abs(centre)
        strayed.append((f"further than {threshold:.3%} from the mean", away > bound))
    if alignment in ("confidence", "both"):
        strayed.append((f"outside the {confidence:.3%} interval", away > reach))
    reasons: list[str | None] = [None] * len(levels)
    for text, members in reversed(strayed):
        for index in np.flatnonzero(members):
            reasons[index] = f"light {levels[index] / centre - 1.0:+.2%}: {text}"
    if all(reasons):
        raise ValueError(
            f"alignment: kept frames must be at least one, got none of {len(levels)}; "
            "widen the threshold"
        )
    return reasons
