"""Held-out photographs: scikit-image's own or a folder's, in the middle."""

from pathlib import Path

import numpy as np
import pytest

from starlight.denoise.images import write_image
from starlight.evaluation.photographs import held_out, middle, training_photographs


def test_own_photographs_are_held_out() -> None:
    photographs = held_out(crop=64)
    assert set(photographs) == {"chelsea", "coffee"}
    assert not set(photographs) & set(training_photographs())
    assert all(photograph.shape == (64, 64, 3) for photograph in photographs.values())
    assert list(held_out(limit=1)) == list(photographs)[:1]


def test_a_folder_gives_its_first_images_by_name(tmp_path: Path) -> None:
    for value, name in enumerate(("b.png", "a.png", "c.png")):
        write_image(tmp_path / name, np.full((3, 5, 3), value, np.uint8))
    photographs = held_out(tmp_path, limit=2)
    assert {name: int(image[0, 0, 0]) for name, image in photographs.items()} == {
        "a.png": 1,
        "b.png": 0,
    }


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder must exist"):
        held_out(tmp_path / "none")
    with pytest.raises(ValueError, match="folder must hold"):
        held_out(tmp_path)


def test_middle() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert np.array_equal(middle(image, 3), image[1:4, 2:5])
    assert np.array_equal(middle(image, 6), image[:, :6])
    assert middle(image, 0) is image
