"""From a session to truth and pairs: better than a mean, in bounded memory, refused when moved."""

import dataclasses
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from starlight.capture.burst import accumulate, clipped_modes
from starlight.capture.camera import Camera, CameraConfig, DefectRates
from starlight.capture.estimate import estimate_noise
from starlight.capture.exposure import corrected, exposure_ratio
from starlight.capture.publish import pair_format, write_scene
from starlight.capture.report import defect_scores, psnr_db, scene_figures, summary
from starlight.capture.session import FrameFormat, KnownTruth, Scene, Session, read_frame
from starlight.capture.simulate import (
    SimulationSettings,
    automatic_gains,
    expose_for_highlights,
    frame_format,
    light_drift,
)
from starlight.capture.truth import PLAIN_MEAN, TruthSettings, make_truth
from starlight.images import read_pixels, write_pixels


def known(session: Session) -> KnownTruth:
    found = KnownTruth.load(session.scenes[0].folder)
    assert found is not None
    return found


def test_each_default_step_helps_and_flaws_are_found(session: Session) -> None:
    scene, format = session.scenes[0], session.format
    found = make_truth(scene, format)
    truth = known(session)
    values = {name: psnr_db(truth.truth, image, format) for name, image in found.steps.items()}
    assert list(values) == ["plain_mean", "dead_pixels", "alignment", "clipping"]
    plain, mended, aligned, last = (value or 0.0 for value in values.values())
    assert mended > plain + 3.0
    assert aligned > mended
    assert last > 40.0
    scores = defect_scores(truth, found.flawed, len(scene.target))
    assert scores["above_6_sigma"] > 40
    assert scores["precision"] >= 0.99
    assert scores["recall_above_6_sigma"] >= 0.97
    flicker = [index for index, reason in enumerate(found.reasons) if reason]
    assert 1 <= len(flicker) <= 6
    assert (found.levels[flicker] > found.levels.mean() * 1.04).all()
    expected = np.sqrt(np.mean(found.noise_left[~found.flawed] ** 2))
    sound = (truth.kind == 0) & (found.statistics.above == 0) & ~found.flawed
    assert abs(np.std((found.truth - truth.truth)[sound]) / expected - 1.0) < 0.3


def test_the_plain_mean_is_the_mean(session: Session) -> None:
    scene = session.scenes[0]
    frames = [read_pixels(frame.path).astype(float) for frame in scene.target]
    found = make_truth(scene, session.format, PLAIN_MEAN)
    np.testing.assert_allclose(found.truth, np.mean(frames, axis=0), rtol=1e-14)
    assert found.kept == len(frames)


def test_statistics_are_exact(session: Session) -> None:
    frames = session.scenes[0].target[:9]
    stack = np.stack([read_pixels(frame.path) for frame in frames]).astype(np.int64)
    found = accumulate(frames, session.format)
    inside = (stack > 0) & (stack < 4095)
    np.testing.assert_array_equal(found.total, stack.sum(0))
    np.testing.assert_array_equal(found.inside, inside.sum(0))
    np.testing.assert_array_equal(found.inside_total, (stack * inside).sum(0))
    np.testing.assert_array_equal(found.inside_squares, (stack**2 * inside).sum(0))
    np.testing.assert_array_equal(found.above, (stack >= 4095).sum(0))
    whole = inside.all(0)
    np.testing.assert_allclose(found.variance[whole], stack.var(0, ddof=1)[whole], rtol=1e-9)


def test_the_mode_replaces_clipped_samples_alone(session: Session) -> None:
    scene, format = session.scenes[0], session.format
    settings = TruthSettings(dead_pixels="none", alignment="none", clipping="mode")
    found = make_truth(scene, format, settings)
    stack = np.stack([read_pixels(frame.path) for frame in scene.target]).astype(float)
    some = (found.statistics.above > 0) & (found.statistics.inside > 0)
    assert some.sum() > 20
    mode = clipped_modes(scene.target, format, some)
    columns = stack[:, some]
    wanted = np.where(columns >= 4095.0, mode, columns).mean(0)
    np.testing.assert_allclose(found.truth[some], wanted, rtol=1e-12)
    np.testing.assert_allclose(found.truth[~some], stack.mean(0)[~some], rtol=1e-12)
    assert found.samples_replaced == (columns >= 4095.0).sum()


def test_the_censored_fit_is_nearer_than_mode_and_mean_where_light_clips(session: Session) -> None:
    scene, format = session.scenes[0], session.format
    truth = known(session)
    errors = {}
    for clipping in ("none", "mode", "censored"):
        found = make_truth(scene, format, TruthSettings(clipping=clipping))  # type: ignore[arg-type]
        share = found.statistics.above / found.statistics.frames
        edge = (share > 0.05) & (share < 0.8) & (truth.kind == 0)
        assert edge.sum() > 20
        errors[clipping] = np.mean((found.truth - truth.truth)[edge])
    assert abs(errors["censored"]) < 0.3 * abs(errors["none"])
    assert errors["none"] < -10.0
    assert errors["mode"] < -10.0


def copies(session: Session, folder: Path, count: int) -> Scene:
    """A scene of `count` frames: copies of the session's first twelve, and twelve dark ones."""
    scene = session.scenes[0]
    target = []
    for index in range(count):
        path = folder / f"{index:04d}.png"
        shutil.copy(scene.target[index % 12].path, path)
        target.append(dataclasses.replace(scene.target[0], path=path))
    return dataclasses.replace(scene, folder=folder, target=tuple(target), dark=scene.dark[:12])


def peak_bytes(scene: Scene, format: FrameFormat, settings: TruthSettings) -> int:
    tracemalloc.start()
    try:
        make_truth(scene, format, settings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("clipping", ["mode", "censored"])
def test_two_hundred_frames_need_no_more_memory_than_twelve(
    session: Session, tmp_path: Path, clipping: str
) -> None:
    settings = TruthSettings(clipping=clipping, alignment="none")  # type: ignore[arg-type]
    few = copies(session, tmp_path, 12)
    many = copies(session, tmp_path, 200)
    peak_bytes(few, session.format, settings)  # caches fill
    least, most = (peak_bytes(scene, session.format, settings) for scene in (few, many))
    frame = 120 * 161 * 2
    # Of each frame stay its light, row means and shift: less than a row. The mode holds the samples
    # of clipped pixels alone.
    assert most - least < 8 * frame
    assert most < 100 * frame


def test_a_moved_camera_is_refused(session: Session, tmp_path: Path) -> None:
    scene = copies(session, tmp_path, 12)
    moved = read_pixels(scene.target[7].path)
    write_pixels(scene.target[7].path, np.roll(moved, (2, 4), (0, 1)))
    with pytest.raises(
        ValueError, match=r"a shift of \+1\.9\d rows and \+3\.9\d columns in 0007.png"
    ):
        make_truth(scene, session.format)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ()}, "target frames must be at least two, got 0"),
        ({"dark": ()}, "both must have dark frames, got none"),
    ],
)
def test_scenes_that_cannot_do_are_refused(
    session: Session, change: dict[str, object], message: str
) -> None:
    scene = dataclasses.replace(session.scenes[0], **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        make_truth(scene, session.format)


def test_exposure_ratios_are_those_of_light_and_gain(session: Session) -> None:
    camera = Camera(CameraConfig(defects=DefectRates(hot=0.0, stuck_low=0.0)))
    rows, columns = np.mgrid[0:160, 0:200]
    scene = np.stack(
        [0.5 + 0.45 * np.sin(rows / 20 + k) * np.cos(columns / 30) for k in range(3)], -1
    )
    projected = camera.project(scene)
    truth = camera.truth(projected)
    sound = np.zeros(truth.shape, bool)
    for lux, analog, digital, tolerance in (
        (200.0, 1.0, 1.0, 0.002), (50.0, 4.0, 1.0, 0.005), (20.0, 16.0, 1.0, 0.01),
        (5.0, 16.0, 2.0, 0.02), (1.0, 16.0, 8.0, 0.06),
    ):  # fmt: skip
        frame = camera.read_out(projected, analog, digital, lux, seed=5)
        ratio = exposure_ratio(frame, truth, sound, frame_format(camera))
        assert abs(ratio / (lux * analog * digital / 200.0) - 1.0) < tolerance
    dark = camera.read_out(projected, 16.0, 1.0, 0.0, seed=5)
    with pytest.raises(ValueError, match="exposure: noisy frame must"):
        exposure_ratio(np.full_like(dark, 240), truth, sound, frame_format(camera))
    format = frame_format(camera)
    np.testing.assert_allclose(corrected(np.array([240.0, 1240.0]), 0.5, format), [240.0, 2240.0])


def test_pairs_show_equal_light_and_record_the_ratio(session: Session, tmp_path: Path) -> None:
    scene, format = session.scenes[0], session.format
    found = make_truth(scene, format)
    written = write_scene(tmp_path, scene, found, format)
    levels = pair_format(format)
    assert levels.white_level == 65535.0
    truth = read_pixels(written.pairs[0].truth)
    np.testing.assert_allclose(truth, np.clip(found.truth, 0, None) * 65535 / 4095, atol=0.5001)
    unclipped = (truth < 40000) & ~found.flawed
    for frame, pair in zip(scene.noisy, written.pairs, strict=True):
        noise = read_pixels(pair.noise)
        assert (pair.analog_gain, pair.digital_gain) == frame.gains
        light = frame.lux * frame.analog_gain * frame.digital_gain / 200.0
        assert abs(pair.exposure_ratio / light - 1.0) < 0.1
        if pair.exposure_ratio > 0.8:
            wanted, shown = (levels.to_linear(image)[unclipped].mean() for image in (truth, noise))
            assert abs(shown / wanted - 1.0) < 0.05
    as_captured = write_scene(tmp_path / "plain", scene, found, format, "as_captured")
    first = read_pixels(as_captured.pairs[0].noise)
    pixels = read_frame(scene.noisy[0], format)
    np.testing.assert_array_equal(first, np.floor(pixels * (65535 / 4095) + 0.5))
    assert as_captured.pairs[0].exposure_ratio == written.pairs[0].exposure_ratio


def test_a_noise_frame_without_light_is_left_out_and_a_moved_one_refused(
    session: Session, tmp_path: Path
) -> None:
    scene, format = copies(session, tmp_path, 12), session.format
    found = make_truth(scene, format, TruthSettings(alignment="none"))
    black, moved = tmp_path / "black.png", tmp_path / "moved.png"
    write_pixels(black, np.full((120, 161), 240, np.uint16))
    write_pixels(moved, np.roll(read_pixels(scene.target[0].path), (0, 4), (0, 1)))
    still, shifted = (
        dataclasses.replace(scene, noisy=(dataclasses.replace(scene.noisy[0], path=path),))
        for path in (black, moved)
    )
    written = write_scene(tmp_path / "o", still, found, format)
    assert written.pairs == ()
    assert "must grow brighter where its truth does" in written.left_out["black.png"]
    figures = scene_figures(still, found, format, written)
    json.dumps(figures, allow_nan=False)
    assert figures["noise_frames"]["left_out"][0]["file"] == "black.png"
    with pytest.raises(ValueError, match=r"\+3\.9\d columns in moved.png"):
        write_scene(tmp_path / "o", shifted, found, format)


def test_the_report_is_strict_json_and_sums_up(session: Session) -> None:
    scene = session.scenes[0]
    found = make_truth(scene, session.format)
    figures = scene_figures(scene, found, session.format)
    json.dumps(figures, allow_nan=False)
    assert figures["frames_kept"] + len(figures["frames_dropped"]) == len(scene.target)
    assert figures["pixels_mended"] == found.flawed.sum()
    assert figures["psnr_db"] == figures["steps"][-1]["psnr_db"]
    assert figures["psnr_plain_mean_db"] == figures["steps"][0]["psnr_db"]
    total = figures["steps"][0]["psnr_db"] + sum(step["gain_db"] for step in figures["steps"][1:])
    assert abs(total - figures["psnr_db"]) < 1e-9
    assert summary([figures, figures])["psnr_db"] == figures["psnr_db"]
    assert summary([{"scene": "real"}]) == {}


def test_noise_is_estimated_from_a_session(session: Session) -> None:
    (found,) = estimate_noise(session)
    assert (found.analog_gain, found.digital_gain) == (1.0, 1.0)
    assert abs(found.fit.a / 3.513262 - 1.0) < 0.05
    assert abs(found.fit.b / 11.917691 - 1.0) < 0.05
    assert abs(found.row_noise / (0.3 * np.sqrt(11.917691)) - 1.0) < 0.05
    encoded = dataclasses.replace(session, format=FrameFormat(tone="srgb"))
    with pytest.raises(ValueError, match=r"frames must be linear \(raw\), got tone curve 'srgb'"):
        estimate_noise(encoded)


def test_the_simulation_is_exposed_as_its_settings_say() -> None:
    camera, settings = Camera(), SimulationSettings()
    drift = light_drift(200, 0.02, np.random.default_rng(0))
    assert abs(drift.mean() - 1.0) < 1e-12
    assert abs(np.abs(drift - 1.0).max() - 0.02) < 1e-12
    projected = camera.project(np.random.default_rng(1).random((100, 100, 3)))
    for gain, lux in ((1.0, 200.0), (4.0, 100.0)):
        chosen = SimulationSettings(analog_gain=gain, lux=lux)
        exposed = expose_for_highlights(projected, camera, chosen)
        clipped = camera.truth(exposed, gain, 1.0, lux) >= 4095.0
        assert abs(clipped.mean() - 0.01) < 0.001
    assert automatic_gains(200.0, camera, settings) == (1.0, 1.0)
    assert automatic_gains(50.0, camera, settings) == (4.0, 1.0)
    assert automatic_gains(6.25, camera, settings) == (16.0, 2.0)
    assert automatic_gains(0.1, camera, settings) == (16.0, 8.0)
