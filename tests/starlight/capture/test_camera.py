"""The simulated camera: physics by its statistics, flaws by what they do, seeds."""

import numpy as np
import pytest

from starlight.bayer import PATTERNS
from starlight.capture.camera import Camera, CameraConfig, DefectRates
from starlight.noise.profiles import CameraProfile

SOUND = DefectRates(hot=0.0, stuck_low=0.0)
GREY = np.full((64, 80, 3), 0.4)


def sound(**values: object) -> Camera:
    return Camera(CameraConfig(defects=SOUND, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(("analog", "digital"), [(1.0, 1.0), (4.0, 1.0), (16.0, 2.0), (3.0, 1.5)])
def test_mean_and_variance_follow_the_profile(analog: float, digital: float) -> None:
    camera = sound(row_noise=0.0, pattern=None, blur_px=0.0, flare=0.0)
    projected = np.full((200, 200, 3), 0.3 / analog / digital)
    frame = camera.read_out(projected, analog, digital, 200.0, seed=1).astype(float)
    a, b = CameraProfile.load("imx385").at_analog_gain(analog)
    signal = 0.3 * 3855.0 / digital
    deviation = digital * np.sqrt(a * signal + b)
    assert abs(frame.mean() - 240.0 - digital * signal) < 5.0 * deviation / np.sqrt(frame.size)
    # A variance of n samples has a relative error of sqrt(2 / n).
    assert abs(frame.var() / deviation**2 - 1.0) < 5.0 * np.sqrt(2.0 / frame.size)


def test_light_and_gain_are_physical() -> None:
    camera = sound()
    projected = camera.project(GREY)
    one = camera.truth(projected, 2.0, 1.0, 50.0)
    np.testing.assert_allclose(camera.truth(projected, 1.0, 1.0, 100.0), one)
    np.testing.assert_allclose(camera.truth(projected, 1.0, 2.0, 50.0), one)
    np.testing.assert_array_equal(camera.truth(projected, lux=0.0), 240.0)


def test_rows_share_their_noise() -> None:
    quiet, loud = (
        sound(row_noise=row_noise).read_out(np.zeros((400, 300)), lux=0.0, seed=3).astype(float)
        for row_noise in (0.0, 2.0)
    )
    b = 11.917691
    of_rows = loud.mean(1).var() - loud.var(axis=1).mean() / 300
    assert abs(of_rows / (4.0 * b) - 1.0) < 5.0 * np.sqrt(2.0 / 400)
    assert quiet.mean(1).var() < 3.0 * b / 300


def test_frames_clip_at_white_and_are_whole_numbers() -> None:
    camera = sound()
    frame = camera.expose(np.full((32, 32, 3), 5.0), seed=0)
    assert frame.dtype == np.uint16
    assert frame.max() == 4095
    assert camera.truth(camera.project(np.full((32, 32, 3), 5.0))).max() == 4095.0


def test_flaws_are_where_the_sensor_map_says_and_what_it_says() -> None:
    rates = DefectRates(hot=0.01, stuck_low=0.01, stuck_high=0.01, dead=0.01)
    camera = Camera(CameraConfig(defects=rates))
    projected = camera.project(GREY)
    sensor = camera.sensor(projected.shape)
    counts = np.bincount(sensor.kind.ravel(), minlength=5)
    assert (counts[1:] > 20).all()
    dark, lit = (
        np.mean([camera.read_out(projected, lux=lux, seed=seed) for seed in range(40)], axis=0)
        for lux in (0.0, 200.0)
    )
    truth = camera.truth(projected)
    hot = (sensor.kind == 1) & (sensor.offset_dn > 100.0) & (sensor.offset_dn < 1500.0)
    np.testing.assert_allclose(dark[hot] - 240.0, sensor.offset_dn[hot], rtol=0.1)
    np.testing.assert_allclose((lit - truth)[hot], sensor.offset_dn[hot], rtol=0.3, atol=60.0)
    held = ~np.isnan(sensor.held_dn)
    wanted = np.minimum(240.0 + sensor.held_dn[held], 4095.0)
    for frames in (dark, lit):
        np.testing.assert_allclose(frames[held], wanted, atol=5.0 * 3.6 / np.sqrt(40))
    assert (sensor.held_dn[sensor.kind == 4] == 0.0).all()
    assert (sensor.held_dn[sensor.kind == 2] <= 0.18 * 3855.0).all()
    np.testing.assert_allclose(
        np.minimum(camera.expected(projected), 4095.0)[held], wanted, rtol=1e-12
    )


def test_a_seed_gives_the_frame_and_the_sensor_seed_the_flaws() -> None:
    camera = Camera()
    np.testing.assert_array_equal(camera.expose(GREY, seed=7), camera.expose(GREY, seed=7))
    assert (camera.expose(GREY, seed=7) != camera.expose(GREY, seed=8)).any()
    other = Camera(CameraConfig(sensor_seed=1))
    assert (other.sensor((64, 80)).kind != camera.sensor((64, 80)).kind).any()


@pytest.mark.parametrize("pattern", [*PATTERNS, None])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_isp_shows_the_scene_in_its_own_colours(pattern: str | None, bits: int) -> None:
    camera = sound(isp=True, isp_bits=bits, pattern=pattern, blur_px=0.0, flare=0.0)
    scene = np.empty((24, 30, 3))
    scene[...] = (0.5, 0.3, 0.2)
    truth = camera.truth(camera.project(scene))
    wanted = np.where(scene > 0.0031308, 1.055 * scene ** (1 / 2.4) - 0.055, 12.92 * scene)
    np.testing.assert_allclose(truth / (2**bits - 1), wanted, atol=1e-9)
    frame = camera.expose(scene, seed=0)
    assert frame.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert frame.shape == scene.shape


def test_a_reduced_image_is_the_mean_of_squares() -> None:
    scene = np.random.default_rng(0).random((24, 36, 3))
    whole, reduced = (sound(isp=True, isp_bits=16, isp_scale=scale) for scale in (1, 3))
    for name in ("truth", "read_out"):
        image = getattr(whole, name)(whole.project(scene), 2.0).astype(np.float64)
        wanted = image.reshape(8, 3, 12, 3, 3).mean((1, 3))
        found = getattr(reduced, name)(reduced.project(scene), 2.0)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 if name == "truth" else 1.0)
    with pytest.raises(ValueError, match="sides must be multiples of isp_scale 3, got 64 x 80"):
        reduced.expose(np.full((64, 80, 3), 0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"analog_gain": 0.5}, "analog_gain must lie in the calibrated range 1..16"),
        ({"digital_gain": 0.5}, "digital_gain must be finite and >= 1, got 0.5"),
        ({"lux": -1.0}, "lux must be finite and >= 0, got -1"),
        ({"scene": np.zeros((4, 4))}, r"scene must have shape \[H, W, 3\], got \[4, 4\]"),
        ({"scene": np.full((4, 4, 3), np.nan)}, "scene must hold finite light >= 0"),
    ],
)
def test_impossible_exposures_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera().expose(**({"scene": GREY} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"isp_bits": 10},
        {"white_balance": (0.5, 1.0, 1.0)},
        {"colour_matrix": ((1.0, 1.0, 1.0),) * 3},
        {"tone": "none"},
        {"isp_scale": 2},
        {"isp": True, "isp_scale": 0},
        {"flare": -0.1},
    ],
)
def test_impossible_cameras_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        CameraConfig(**values)  # type: ignore[arg-type]
