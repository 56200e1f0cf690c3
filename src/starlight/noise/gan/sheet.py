"""Sample sheets: truth, real and generated noise side by side, to be looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from starlight.images import Pixels, write_pixels
from starlight.noise.gan.generate import NoiseGenerator
from starlight.noise.pairs import Pair

_SIDE, _GAP = 128, 4
_SIGMAS = 3.0


def write_sheet(
    path: str | os.PathLike[str],
    generator: NoiseGenerator,
    rows: Sequence[tuple[Pair, Pixels, Pixels]],
) -> None:
    """Write a PNG with one row per (pair, truth, real): the middle 128 x 128 pixels of each.

    Columns: truth, real noise image, generated noise image, real residual, generated residual;
    residuals from -3 to 3 times the real one's deviation.
    """
    cells = []
    for number, (pair, truth, real) in enumerate(rows):
        window = tuple(
            slice(start, start + _SIDE)
            for start in (max(0, (size - _SIDE) // 8 * 4) for size in truth.shape[:2])
        )
        truth, real = truth[window], real[window]
        fake = generator.generate(truth, pair.analog_gain, pair.correcting_gain, seed=number)
        scale = generator.units.white
        views = [image / scale for image in (truth, real, fake)]
        spread = _SIGMAS * max(float(np.std(views[1] - views[0])), 1e-3)
        views += [0.5 + (view - views[0]) / (2.0 * spread) for view in views[1:]]
        cells.append([np.clip(view, 0.0, 1.0) for view in views])
    sheet = np.ones((len(cells) * (_SIDE + _GAP) - _GAP, 5 * (_SIDE + _GAP) - _GAP, 3))
    for i, row in enumerate(cells):
        for j, view in enumerate(row):
            top, left = i * (_SIDE + _GAP), j * (_SIDE + _GAP)
            sheet[top : top + view.shape[0], left : left + view.shape[1]] = view
    write_pixels(path, np.floor(sheet * 255.0 + 0.5).astype(np.uint8))
