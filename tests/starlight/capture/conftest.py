"""A small simulated session, made once."""

from pathlib import Path

import pytest

from starlight.capture.camera import CameraConfig, DefectRates
from starlight.capture.session import Session, read_session
from starlight.capture.simulate import SimulationSettings, simulate_session
from starlight.denoise.images import write_image
from starlight.evaluation import evaluation_photographs

RATES = DefectRates(hot=0.002, stuck_low=0.002, dead=0.001)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crops of photographs, 120 x 161: odd in one direction."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, image in evaluation_photographs().items():
        write_image(folder / f"{name}.png", image[60:180, 100:261])
    return folder


@pytest.fixture(scope="session")
def session(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One scene: 60 target, 40 dark and 8 noisy raw frames, three flicker frames among them."""
    folder = tmp_path_factory.mktemp("session") / "s"
    settings = SimulationSettings(frames=60, dark=40, noisy=8, flicker=0.05, seed=3)
    simulate_session(photographs, folder, settings, CameraConfig(defects=RATES))
    return read_session(folder)
