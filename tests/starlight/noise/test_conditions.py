"""Named conditions: reproducible to the bit, and of the calibrated variance."""

import json
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlight.noise import (
    NAMED_CONDITIONS,
    TONE_CURVES,
    CameraNoise,
    CameraProfile,
    GaussianNoise,
    NoiseCondition,
    conditions,
    round_to_u8,
)
from starlight.noise.conditions import OutputRange

IMX385 = CameraProfile.load("imx385")
RAMP = (np.arange(4 * 64 * 3).reshape(4, 64, 3) * 7 % 256).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "first", "u8_crc", "float_crc"),
    [
        ("sigma_25", [28, 0, 9, 15, 0, 48, 29, 57, 1], 4114262983, 1512096923),
        ("iso_1600", [3, 1, 16, 18, 28, 37, 39, 55, 59], 1880473320, 2049442094),
        ("iso_25600", [29, 0, 27, 27, 0, 38, 21, 68, 34], 4189390261, 3181033894),
        ("iso_6400_dg2", [19, 0, 17, 0, 0, 43, 27, 64, 53], 1128685453, 2884335455),
    ],
)
def test_a_seed_gives_these_bits_everywhere(
    name: str, first: list[int], u8_crc: int, float_crc: int
) -> None:
    condition = NoiseCondition.parse(name)
    noisy = condition.apply(RAMP, seed=7)
    assert noisy[0, :3].ravel().tolist() == first
    assert zlib.crc32(noisy.tobytes()) == u8_crc
    unclipped = condition.apply(RAMP, seed=7, output="float_unclipped")
    assert zlib.crc32(unclipped.astype("<f4").tobytes()) == float_crc


@given(
    st.sampled_from(NAMED_CONDITIONS),
    st.integers(0, 2**32),
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(get_args(OutputRange)),
)
def test_a_batch_equals_its_images(
    name: str, seed: int, shape: tuple[int, int, int], output: OutputRange
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    condition = NoiseCondition.parse(name)
    batch = condition.apply(images, seed, output)
    assert batch.shape == images.shape
    for i, image in enumerate(images):
        alone = condition.apply(image, seed + i, output)
        assert alone.dtype == batch.dtype
        np.testing.assert_array_equal(batch[i], alone)
        np.testing.assert_array_equal(alone, condition.apply(image.astype(float), seed + i, output))


@pytest.mark.parametrize("name", ["sigma_25", "iso_6400"])
def test_the_block_of_the_computation_does_not_show(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = NoiseCondition.parse(name)
    whole = condition.apply(RAMP, 1, "float_unclipped")
    monkeypatch.setattr(conditions, "_BLOCK", 20)
    np.testing.assert_array_equal(condition.apply(RAMP, 1, "float_unclipped"), whole)


@pytest.mark.parametrize("name", [*NAMED_CONDITIONS, "sigma_7.5", "iso_2000", "iso_6400_dg1.5"])
def test_a_name_parses_to_a_condition_of_that_name(name: str) -> None:
    assert NoiseCondition.parse(name).name == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sigma", "condition must read sigma_N"),
        ("sigma_-1", "condition must read sigma_N"),
        ("iso_6400dg2", "condition must read sigma_N"),
        ("", "condition must read sigma_N"),
        ("iso_800", r"calibrated range 1600\.\.25600, got 800"),
        ("iso_51200", r"calibrated range 1600\.\.25600, got 51200"),
        ("iso_6400_dg0.5", "digital_gain must be finite and >= 1, got 0.5"),
    ],
)
def test_other_names_are_refused(name: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        NoiseCondition.parse(name)


@pytest.mark.parametrize(
    ("image", "error", "rule"),
    [
        (np.zeros((2, 2, 3), np.int32), TypeError, "image must be uint8 or floating, got int32"),
        (np.zeros((2, 2), np.uint8), ValueError, r"shape \[H, W, C\].*got \[2, 2\]"),
        (np.full((2, 2, 3), 256.0), ValueError, r"values in 0\.\.255, got 256\.\.256"),
        (np.full((2, 2, 3), np.nan), ValueError, r"values in 0\.\.255, got nan"),
    ],
)
def test_other_images_are_refused(image: Any, error: type[Exception], rule: str) -> None:
    with pytest.raises(error, match=rule):
        GaussianNoise(1.0).apply(image, 0)


def test_other_outputs_and_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="output must be one of u8_clipped, float_unclipped"):
        GaussianNoise(1.0).apply(RAMP, 0, "u16")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="tone curve must be one of srgb, gamma22, raspberrypi, got 'log'"
    ):
        CameraNoise(1.0, curve="log")
    with pytest.raises(ValueError, match="shot must be poisson or gaussian"):
        CameraNoise(1.0, shot="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sigma must be finite and >= 0, got nan"):
        GaussianNoise(float("nan"))


def test_rounding_is_floor_of_x_plus_one_half_then_clip() -> None:
    pixels = np.array([-3.0, -0.5, 0.49, 0.5, 1.5, 254.5, 255.4, 300.0])
    assert round_to_u8(pixels).tolist() == [0, 0, 0, 1, 2, 255, 255, 255]


def test_gaussian_noise_has_its_sigma() -> None:
    clean = np.full((300, 300, 3), 128, np.uint8)
    noise = GaussianNoise(25.0).apply(clean, 3, "float_unclipped").astype(np.float64) - 128.0
    # Standard error of the deviation is 25 / sqrt(2 n), of the mean 25 / sqrt(n).
    assert abs(noise.std() - 25.0) < 4 * 25.0 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * 25.0 / np.sqrt(noise.size)
    np.testing.assert_array_equal(GaussianNoise(0.0).apply(RAMP, 3), RAMP)


@pytest.mark.parametrize("shot", ["poisson", "gaussian"])
@pytest.mark.parametrize("curve", sorted(TONE_CURVES))
@pytest.mark.parametrize(("gain", "digital"), [(1.0, 1.0), (16.0, 1.0), (5.0, 3.0)])
@pytest.mark.parametrize("level", [0, 40, 200, 255])
def test_camera_noise_has_the_calibrated_mean_and_variance_in_linear_light(
    shot: Any, curve: str, gain: float, digital: float, level: int
) -> None:
    clean = np.full((200, 200, 3), level, np.uint8)
    condition = CameraNoise(gain, digital, shot=shot, curve=curve)
    noisy = condition.apply(clean, 11, "float_unclipped").astype(np.float64)
    tone = TONE_CURVES[curve]
    linear = tone.to_linear(noisy / 255.0)
    signal = float(tone.to_linear(np.array([level / 255.0]))[0])
    a, b = IMX385.at_analog_gain(gain)
    variance = digital * a / IMX385.range_dn * signal + digital**2 * b / IMX385.range_dn**2
    n = linear.size
    assert abs(linear.mean() - signal) < 4 * np.sqrt(variance / n)
    assert abs(linear.var() / variance - 1.0) < 5 * np.sqrt(2 / n)  # Poisson's tails are heavier


@pytest.mark.parametrize("curve", sorted(TONE_CURVES))
def test_a_tone_curve_is_odd_monotonic_and_inverted(curve: str) -> None:
    tone = TONE_CURVES[curve]
    encoded = np.linspace(-0.5, 1.5, 4001)
    linear = tone.to_linear(encoded)
    assert np.all(np.diff(linear) > 0)
    np.testing.assert_array_equal(tone.to_linear(-encoded), -linear)
    # The standard's rounded constants leave a step of 3e-8 where its two pieces meet.
    np.testing.assert_allclose(tone.to_encoded(linear), encoded, rtol=0, atol=4e-8)
    assert tone.to_linear(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


def test_srgb_is_the_standard_curve() -> None:
    encoded = np.arange(256) / 255.0
    wanted = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(TONE_CURVES["srgb"].to_linear(encoded), wanted, rtol=2e-15, atol=0)


def test_a_profile_is_exact_at_its_points_and_log_linear_between() -> None:
    for point in IMX385.calibration:
        assert IMX385.at_analog_gain(point.analog_gain) == (point.a, point.b)
        assert IMX385.gain_of_iso(point.iso) == point.analog_gain
    low, high = IMX385.calibration[1:3]
    a, b = IMX385.at_analog_gain(float(np.sqrt(low.analog_gain * high.analog_gain)))
    assert a == pytest.approx(np.sqrt(low.a * high.a), rel=1e-14)
    assert b == pytest.approx(np.sqrt(low.b * high.b), rel=1e-14)
    assert IMX385.gain_range == (1.0, 16.0)


def profile_json(**changes: Any) -> dict[str, Any]:
    point = {"iso": 100, "analog_gain": 1.0, "a": 2.0, "b": 3.0}
    base = {
        "sensor": "test",
        "black_level_dn": 64,
        "white_level_dn": 1023,
        "calibration": [point, {**point, "iso": 200, "analog_gain": 2.0}],
    }
    return {**base, **changes}


def test_a_profile_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps(profile_json()))
    assert CameraProfile.load(path).range_dn == 959.0
    assert NoiseCondition.parse("iso_150", str(path)).name == "iso_150"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "must be a JSON profile"),
        (json.dumps(profile_json(white_level_dn=64)), "white_level_dn must exceed"),
        (json.dumps(profile_json(calibration=[])), "calibration"),
        (json.dumps(profile_json(unknown=1)), "unknown"),
        (json.dumps(profile_json(calibration=profile_json()["calibration"][::-1])), "increase"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_one_line(
    tmp_path: Path, text: str, rule: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rule) as raised:
        CameraProfile.load(path)
    assert "\n" not in str(raised.value)


def test_a_missing_profile_names_the_shipped_ones() -> None:
    shipped = r"shipped profile \(imx219, imx290, imx385, imx477\)"
    with pytest.raises(FileNotFoundError, match=rf"{shipped}.*got 'imx999'"):
        CameraProfile.load("imx999")
