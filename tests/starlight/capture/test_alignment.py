"""Frames dropped by either rule; shifts told to a fraction of a pixel."""

import numpy as np
import pytest
from scipy.ndimage import shift as moved_by

from starlight.capture.alignment import drop_reasons
from starlight.capture.stillness import block_means, block_size, check_still, shift_between
from starlight.evaluation import evaluation_photographs


def dropped(levels: list[float], **choices: object) -> list[int]:
    reasons = drop_reasons(np.array(levels), **choices)  # type: ignore[arg-type]
    return [index for index, reason in enumerate(reasons) if reason is not None]


def test_the_threshold_is_a_share_of_the_mean_of_means() -> None:
    levels = [100.0] * 8 + [104.9, 95.2, 106.0, 93.9]
    assert dropped(levels, alignment="threshold", threshold=0.05) == [10, 11]
    assert dropped(levels, alignment="threshold", threshold=0.04) == [8, 9, 10, 11]
    assert dropped(levels, alignment="none") == []


def test_the_interval_follows_the_spread_of_the_means() -> None:
    rng = np.random.default_rng(0)
    levels = [*(100.0 + rng.normal(0.0, 0.1, 200)).tolist(), 101.0]
    assert dropped(levels, alignment="confidence", confidence=0.999) == [200]
    assert dropped(levels, alignment="both", threshold=0.05) == [200]
    reach = 1.6448536 * np.std(levels, ddof=1)  # the two-sided 90 % of a normal
    outside = np.flatnonzero(np.abs(levels - np.mean(levels)) > reach)
    assert dropped(levels, alignment="confidence", confidence=0.9) == outside.tolist()
    assert len(outside) > 5


def test_equal_light_drops_nothing_and_nothing_kept_is_refused() -> None:
    for alignment in ("threshold", "confidence", "both"):
        assert dropped([0.1 + 0.2] * 7, alignment=alignment) == []
        assert dropped([5.0], alignment=alignment) == []
    with pytest.raises(ValueError, match="kept frames must be at least one, got none of 2"):
        drop_reasons(np.array([1.0, 3.0]), "threshold", 0.05)


def test_the_reason_holds_rule_and_value() -> None:
    (reason,) = [text for text in drop_reasons(np.array([1.0] * 9 + [1.2]), "threshold") if text]
    assert reason == "light +17.65%: further than 5.000% from the mean"


IMAGE = evaluation_photographs()["coffee"][..., 1].astype(float)


@pytest.mark.parametrize("wanted", [(0.0, 0.0), (1.0, -2.0), (0.5, 0.25), (-3.5, 4.0)])
def test_shifts_are_told_to_a_tenth_of_a_pixel_under_noise(wanted: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    moved = moved_by(IMAGE, wanted, order=3, mode="mirror")
    first, second = (
        block_means(image + rng.normal(0, 30, IMAGE.shape)) for image in (IMAGE, moved)
    )
    found = shift_between(first, second, block_size(IMAGE.shape))
    assert found is not None
    np.testing.assert_allclose(found, wanted, atol=0.15)


def test_dim_frames_are_told_too_and_noise_alone_is_not() -> None:
    rng = np.random.default_rng(1)
    size = block_size(IMAGE.shape)
    reference = block_means(IMAGE)
    dim = block_means(
        0.05 * moved_by(IMAGE, (2.0, 0.0), mode="mirror") + rng.normal(0, 3, IMAGE.shape)
    )
    found = shift_between(reference, dim, size)
    assert found is not None
    np.testing.assert_allclose(found, (2.0, 0.0), atol=0.3)
    noise = block_means(rng.normal(100, 30, IMAGE.shape))
    assert shift_between(reference, noise, size) is None
    assert shift_between(np.ones((20, 20)), np.ones((20, 20)), 2) is None
    assert shift_between(np.ones((4, 20)), np.ones((4, 20)), 2) is None


def test_a_moved_camera_is_refused_with_the_shift() -> None:
    assert check_still(["a", "b", "c"], [(0.0, 0.1), None, (0.3, 0.4)], 0.6) == (0.5, 1)
    with pytest.raises(
        ValueError, match=r"within 0.4 pixels, got a shift of \+0.30 rows and -0.40 columns in c"
    ):
        check_still(["a", "b", "c"], [(0.0, 0.1), None, (0.3, -0.4)], 0.4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 9, 3), (400, 900), (2000, 3000)])
def test_blocks_cover_any_size_in_whole_bayer_cells(shape: tuple[int, ...]) -> None:
    size = block_size(shape)
    assert size % 2 == 0
    blocks = block_means(np.full(shape, 7, np.uint16))
    np.testing.assert_array_equal(blocks, 7.0)
    assert blocks.shape == tuple(max(1, side // size) for side in shape[:2])
