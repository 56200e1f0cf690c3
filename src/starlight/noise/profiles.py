"""Camera noise profiles: what a calibration found, and the noise it predicts between its points.

Units. A raw sample is a digital number (DN); the signal is counted above black. Calibration gives
    variance[DN^2] = a * signal[DN] + b
per analog gain, at the converter's output. In linear light normalised to [0, 1], x = signal / W
with W = white - black, that is  variance = (a / W) x + b / W^2. The photograph is the normalised
exposure: at a higher gain the sensor has collected fewer photons for the same x, which is why a
grows with the gain. A digital gain d multiplies after the converter, signal and noise alike:
    variance = (d a / W) x + d^2 b / W^2.
"""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from starlight.noise.portable import exp, log


class CalibrationPoint(BaseModel):
    """One measured gain: variance[DN^2] = a * signal[DN] + b."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iso: PositiveFloat
    analog_gain: PositiveFloat
    a: PositiveFloat
    b: PositiveFloat


class CameraProfile(BaseModel):
    """A sensor's calibrated Poisson-Gaussian noise over its analog gains.

    Raises (pydantic) ValidationError, a ValueError, when the levels or the table make no sense.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sensor: str
    description: str = ""
    source: str = ""
    black_level_dn: float
    white_level_dn: float
    calibration: tuple[CalibrationPoint, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> CameraProfile:
        if self.white_level_dn <= self.black_level_dn:
            raise ValueError(
                f"camera profile: white_level_dn must exceed black_level_dn "
                f"{self.black_level_dn:g}, got {self.white_level_dn:g}"
            )
        for column in ("analog_gain", "iso"):
            values = [getattr(point, column) for point in self.calibration]
            if any(low >= high for low, high in pairwise(values)):
                raise ValueError(
                    f"camera profile: {column} must increase along calibration, got {values}"
                )
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> CameraProfile:
        """The shipped profile of that name ("imx385"), or the profile in that JSON file.

        Raises FileNotFoundError when neither exists, ValueError when the file is not a profile.
        """
        shipped = resources.files("starlight.noise") / "profiles" / f"{name_or_path}.json"
        source = shipped if shipped.is_file() else Path(name_or_path)
        if not source.is_file():
            raise FileNotFoundError(
                f"camera profile: name must be a shipped profile ({', '.join(shipped_profiles())}) "
                f"or a JSON file, got {str(name_or_path)!r}"
            )
        try:
            return cls.model_validate_json(source.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            reason = str(error).replace("\n", "; ")
            raise ValueError(
                f"camera profile: {name_or_path} must be a JSON profile like imx385.json, "
                f"got {reason}"
            ) from None

    @property
    def range_dn(self) -> float:
        """White minus black, in DN."""
        return self.white_level_dn - self.black_level_dn

    @property
    def gain_range(self) -> tuple[float, float]:
        """Lowest and highest calibrated analog gain."""
        return self.calibration[0].analog_gain, self.calibration[-1].analog_gain

    def at_analog_gain(self, gain: float) -> tuple[float, float]:
        """(a, b) in DN and DN^2 at an analog gain.

        log a and log b are linear in log gain between calibration points, exact at them. Raises
        ValueError outside the calibrated range: a profile is not extrapolated.
        """
        return self._interpolate("analog_gain", gain, "a"), self._interpolate(
            "analog_gain", gain, "b"
        )

    def gain_of_iso(self, iso: float) -> float:
        """Analog gain of an ISO setting, by the same rule. Raises ValueError out of range."""
        return self._interpolate("iso", iso, "analog_gain")

    def _interpolate(self, column: str, value: float, wanted: str) -> float:
        known = np.array([getattr(point, column) for point in self.calibration])
        table = np.array([getattr(point, wanted) for point in self.calibration])
        if not known[0] <= value <= known[-1]:
            raise ValueError(
                f"camera profile {self.sensor}: {column} must lie in the calibrated range "
                f"{known[0]:g}..{known[-1]:g}, got {value:g}"
            )
        if value in known:
            return float(table[np.searchsorted(known, value)])
        upper = int(np.searchsorted(known, value))
        x0, x1, x = log(np.array([known[upper - 1], known[upper], value]))
        y0, y1 = log(table[upper - 1 : upper + 1])
        return float(exp(np.array(y0 + (y1 - y0) * ((x - x0) / (x1 - x0)))))


def shipped_profiles() -> list[str]:
    """Names that `CameraProfile.load` knows without a file."""
    folder = resources.files("starlight.noise") / "profiles"
    return sorted(
        entry.name.removesuffix(".json")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    )
