"""A small pair set of a made-up camera: coloured scenes, noise correlated along rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from starlight.images import write_pixels
from starlight.noise.pairs import Pair, PairSet, read_pairs, write_pairs

GAINS = ((1.0, 1.0), (4.0, 1.0), (4.0, 2.0))


def make_pair_set(folder: Path, scenes: int = 3, side: int = 64, dtype: type = np.uint8) -> PairSet:
    """Scenes of smooth colour, one noise image per gain of `GAINS`."""
    white = np.iinfo(dtype).max
    pairs = []
    for scene in range(scenes):
        random = np.random.default_rng(scene)
        y, x = np.mgrid[:side, :side] / side
        truth = np.stack([0.1 + 0.8 * x, 0.2 + 0.5 * y, np.full_like(x, 0.2 + 0.2 * scene)], -1)
        truth_path = folder / "truth" / f"scene{scene}.png"
        (folder / "noise" / f"scene{scene}").mkdir(parents=True, exist_ok=True)
        truth_path.parent.mkdir(parents=True, exist_ok=True)
        truth = np.floor(truth * white + 0.5) / white
        write_pixels(truth_path, (truth * white + 0.5).astype(dtype))
        for number, (analog, digital) in enumerate(GAINS):
            white_noise = random.standard_normal((side, side + 1, 3))
            smooth = (white_noise[:, 1:] + white_noise[:, :-1]) / np.sqrt(2.0)
            noisy = truth + np.sqrt(1e-4 + 2e-4 * analog * truth) * digital * smooth
            path = folder / "noise" / f"scene{scene}" / f"{number:04d}.png"
            write_pixels(path, (np.clip(noisy, 0, 1) * white + 0.5).astype(dtype))
            pairs.append(Pair(f"scene{scene}", truth_path, path, analog, digital))
    write_pairs(folder, pairs)
    return read_pairs(folder)


@pytest.fixture(scope="session")
def pair_set(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    return make_pair_set(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def pair_set_maker() -> Callable[..., PairSet]:
    """`make_pair_set`."""
    return make_pair_set
