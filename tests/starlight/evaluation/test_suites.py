"""Suites: the same noise for the same name, figures of what the denoiser returned."""

from pathlib import Path

import numpy as np
import pytest

from starlight.denoise.images import write_image
from starlight.evaluation import (
    evaluate,
    evaluation_photographs,
    folder_photographs,
    image_seed,
    mean_scores,
    psnr,
    ssim,
    training_photographs,
)
from starlight.evaluation.peers import block_matching, noise_sigma, non_local_means
from starlight.noise import GaussianNoise, NoiseCondition

CHELSEA = evaluation_photographs()["chelsea"]
PHOTOGRAPHS = {"left": CHELSEA[:64, :48], "right": CHELSEA[-48:, -64:]}
CONDITIONS = [NoiseCondition.parse(name) for name in ("sigma_15", "iso_25600")]


def identity(noisy: np.ndarray) -> np.ndarray:
    return noisy


def test_scores_are_of_the_denoisers_result() -> None:
    def flatten(noisy: np.ndarray) -> np.ndarray:
        assert noisy.dtype == np.uint8
        return np.full_like(noisy, 100)

    scores = evaluate(flatten, PHOTOGRAPHS, CONDITIONS)
    assert [(s.condition, s.image) for s in scores] == [
        ("sigma_15", "left"),
        ("sigma_15", "right"),
        ("iso_25600", "left"),
        ("iso_25600", "right"),
    ]
    clean = PHOTOGRAPHS["right"]
    noisy = CONDITIONS[1].apply(clean, image_seed("right", "iso_25600"))
    assert scores[3].psnr == psnr(clean, np.full_like(clean, 100))
    assert scores[3].psnr_noisy == psnr(clean, noisy)
    assert scores[3].ssim_noisy == ssim(clean, noisy)


def test_a_photograph_sees_the_same_noise_whatever_stands_beside_it() -> None:
    together = evaluate(identity, PHOTOGRAPHS, CONDITIONS)
    alone = evaluate(identity, {"right": PHOTOGRAPHS["right"]}, CONDITIONS[1:])
    assert together[3] == alone[0]
    assert evaluate(identity, PHOTOGRAPHS, CONDITIONS, seed=1)[3] != alone[0]


def test_unclipped_input_is_float_in_unit_range_and_beyond() -> None:
    seen = []

    def look(noisy: np.ndarray) -> np.ndarray:
        seen.append(noisy)
        return noisy

    (score,) = evaluate(look, {"left": PHOTOGRAPHS["left"]}, [GaussianNoise(50)], "float_unclipped")
    assert seen[0].dtype == np.float32
    assert seen[0].min() < 0.0
    wanted = GaussianNoise(50).apply(
        PHOTOGRAPHS["left"], image_seed("left", "sigma_50"), "float_unclipped"
    )
    np.testing.assert_allclose(seen[0] * 255.0, wanted, rtol=2e-7)
    assert score.psnr == score.psnr_noisy


def test_means_are_of_the_decibels() -> None:
    scores = evaluate(identity, PHOTOGRAPHS, CONDITIONS)
    means = mean_scores(scores)
    assert list(means) == ["sigma_15", "iso_25600"]
    assert means["sigma_15"]["psnr"] == (scores[0].psnr + scores[1].psnr) / 2
    assert means["iso_25600"]["ssim"] == (scores[2].ssim + scores[3].ssim) / 2


def test_a_folder_gives_its_images_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.webp", "c.tiff"):
        write_image(tmp_path / name, PHOTOGRAPHS["left"])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    photographs = folder_photographs(tmp_path)
    assert list(photographs) == ["a.webp", "b.png", "c.tiff"]
    from_files = evaluate(identity, photographs, CONDITIONS[:1])
    in_memory = evaluate(identity, dict.fromkeys(photographs, PHOTOGRAPHS["left"]), CONDITIONS[:1])
    assert from_files == in_memory


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder must hold a file ending in \.png"):
        folder_photographs(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder must exist"):
        folder_photographs(tmp_path / "none")


def test_the_photographs_of_scikit_image_are_split() -> None:
    held_out, train = evaluation_photographs(), training_photographs()
    assert sorted(held_out) == ["chelsea", "coffee"]
    assert held_out["chelsea"].shape == (300, 451, 3)
    assert not set(held_out) & set(train)
    for photograph in (*held_out.values(), *train.values()):
        assert photograph.dtype == np.uint8
        assert photograph.shape[2] == 3


@pytest.mark.parametrize("sigma", [5.0, 15.0, 40.0])
def test_the_noise_estimate_finds_sigma_on_a_smooth_image(sigma: float) -> None:
    ramp = np.linspace(120, 136, 200)[:, None, None] * np.ones((1, 200, 3))
    noisy = GaussianNoise(sigma).apply(ramp, 0)
    assert noise_sigma(noisy) == pytest.approx(sigma, rel=0.02)


def test_non_local_means_denoises_and_keeps_the_colours_apart() -> None:
    pytest.importorskip("cv2", reason="optional peer: pip install 'starlight[peers]'")
    means = mean_scores(evaluate(non_local_means, PHOTOGRAPHS, [GaussianNoise(25)]))["sigma_25"]
    assert means["psnr"] > means["psnr_noisy"] + 4.0
    with pytest.raises(TypeError, match=r"must be uint8 .*got float32"):
        non_local_means(CHELSEA.astype(np.float32))


def test_non_local_means_takes_a_sigma() -> None:
    pytest.importorskip("cv2", reason="optional peer: pip install 'starlight[peers]'")
    noisy = GaussianNoise(25).apply(CHELSEA[:64, :64], 0)
    told = non_local_means(noisy, noise_sigma(noisy))
    np.testing.assert_array_equal(told, non_local_means(noisy))
    assert not np.array_equal(told, non_local_means(noisy, 5.0))


def test_block_matching_denoises_both_kinds_of_input() -> None:
    pytest.importorskip("bm3d", reason="optional peer, non-commercial licence: pip install bm3d")
    clean = CHELSEA[:32, :32]
    noisy = GaussianNoise(25).apply(clean, 0, "float_unclipped") / np.float32(255.0)
    estimate = block_matching(noisy, 25.0)
    assert estimate.dtype == np.float32
    assert psnr(clean, estimate * 255.0) > psnr(clean, noisy * 255.0) + 4.0
    noisy_u8 = GaussianNoise(25).apply(clean, 0)
    assert psnr(clean, block_matching(noisy_u8, 25.0)) > psnr(clean, noisy_u8) + 4.0
