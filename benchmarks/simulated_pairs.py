"""Pair sets of a simulated camera with an ISP: row noise, demosaicing, tone curve."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from starlight.capture.camera import Camera, CameraConfig, DefectRates
from starlight.denoise.images import read_image
from starlight.images import write_pixels
from starlight.noise.pairs import FILE_NAME, Pair, write_pairs
from starlight.noise.tone import tone_curve

CAMERA = CameraConfig(isp=True, defects=DefectRates(hot=0.0, stuck_low=0.0))


def simulate_pairs(
    folder: Path,
    photographs: Sequence[Path],
    gains: Iterable[tuple[float, float]],
    frames: int,
    crop: int,
    seed: int = 0,
) -> Path:
    """Photograph the upper left crop x crop of each with every (analog, digital) gain.

    The light falls as the gains rise, so all frames of a scene are equally bright; the truth is the
    frame without noise. Scenes differ in exposure, from half to two and a half times. Writes a pair
    set of 8-bit images unless it is there, and returns the folder.
    """
    if (folder / FILE_NAME).is_file():
        return folder
    camera, settings = Camera(CAMERA), list(product(gains, range(frames)))
    pairs: list[Pair] = []
    for index, path in enumerate(photographs):
        exposure = 2.0 ** np.random.default_rng((seed, index)).uniform(-1.0, 1.3)
        light = tone_curve("srgb").to_linear(read_image(path)[:crop, :crop] / 255.0)
        projected = camera.project(light * exposure)
        (folder / "noise" / path.stem).mkdir(parents=True, exist_ok=True)
        (folder / "truth").mkdir(exist_ok=True)
        truth = folder / "truth" / f"{path.stem}.png"
        write_pixels(truth, np.floor(camera.truth(projected) + 0.5).astype(np.uint8))
        for number, ((analog, digital), _) in enumerate(settings):
            noise = folder / "noise" / path.stem / f"{number:04d}.png"
            lux = camera.config.full_scale_lux / (analog * digital)
            word = int(np.random.SeedSequence((seed, index, number)).generate_state(1)[0])
            write_pixels(noise, camera.read_out(projected, analog, digital, lux, word))
            pairs.append(Pair(path.stem, truth, noise, analog, digital))
    write_pairs(folder, pairs)
    return folder
