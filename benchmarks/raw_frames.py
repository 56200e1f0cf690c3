"""Raw frames of a real sensor, which the package msfc-ccd carries, and its gain from them.

The frames are of the CCD cameras of ESIS, a NASA sounding rocket instrument (BSD-3-Clause): two of
a diffuse lamp seconds apart, two with the lamp off. The package itself is not imported, it would
ask for astropy; its FITS files are read here.
"""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from starlight.noise.calibration import NoisePoints, fit_noise, flat_pair_points

LAMP = ("ESIS1_04803", "ESIS1_04804")
DARK = ("ESIS1_04860", "ESIS1_04861")

# Each of four amplifiers reads a quarter of the frame: 1024 x 512 lit pixels behind 50 blank and
# before 2 overscan columns, and 8 masked rows at the outer edge.
_BLANK, _OVERSCAN, _MASKED = 50, 2, 8


@dataclass(frozen=True)
class SensorGain:
    """Gain of one amplifier: a in DN per electron, read noise in DN."""

    tap: str
    signal_dn: float
    a: float
    a_error: float
    electrons_per_dn: float
    read_noise_dn: float


def sensor_gains() -> list[SensorGain]:
    """The gain of each amplifier by the photon transfer method; empty without the package."""
    spec = importlib.util.find_spec("msfc_ccd")
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(spec.submodule_search_locations[0]) / "_data" / "led"
    lamp, dark = (
        [read_fits(folder / f"{name}.fit.gz") for name in names] for names in (LAMP, DARK)
    )
    found = []
    for tap, area in taps(*lamp[0].shape).items():
        first, second = (frame[area] for frame in lamp)
        dark_first, dark_second = (frame[area] for frame in dark)
        black = float(np.mean([dark_first, dark_second]))
        points = NoisePoints.join(
            [
                flat_pair_points(first, second, black),
                flat_pair_points(dark_first, dark_second, black),
            ]
        )
        fit = fit_noise(points)
        signal = float(np.mean([first, second])) - black
        read = float(np.sqrt(max(fit.b, 0.0)))
        found.append(SensorGain(tap, signal, fit.a, fit.a_error, fit.electrons_per_dn, read))
    return found


def taps(height: int, width: int) -> dict[str, tuple[slice, slice]]:
    """Name to lit pixels of each amplifier."""
    rows = {"top": slice(_MASKED, height // 2), "bottom": slice(height // 2, height - _MASKED)}
    columns = {
        "left": slice(_BLANK, width // 2 - _OVERSCAN),
        "right": slice(width // 2 + _OVERSCAN, width - _BLANK),
    }
    return {f"{row} {column}": (rows[row], columns[column]) for row in rows for column in columns}


def read_fits(path: Path) -> NDArray[np.int64]:
    """The first image of a gzipped FITS file of 16 bits, int64 [H, W].

    Header cards of 80 bytes fill blocks of 2880; data is big-endian and offset by BZERO.
    Raises ValueError for another kind.
    """
    data = gzip.decompress(path.read_bytes())
    cards: dict[str, str] = {}
    position = 0
    while True:
        card = data[position : position + 80].decode("ascii", "replace")
        position += 80
        if card.startswith("END") or position >= len(data):
            break
        cards.setdefault(card[:8].strip(), card[10:].split("/")[0].strip())
    if cards.get("BITPIX") != "16" or cards.get("NAXIS") != "2":
        raise ValueError(f"FITS {path}: image must have 16 bits and two axes, got {cards}")
    start = -(-position // 2880) * 2880
    shape = int(cards["NAXIS2"]), int(cards["NAXIS1"])
    values = np.frombuffer(data, ">i2", shape[0] * shape[1], start).reshape(shape)
    return values.astype(np.int64) + int(float(cards.get("BZERO", "0")))
