"""Camera image files: every bit of 8 and 16 kept, everything else refused by name."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from starlight.images import CAMERA_SUFFIXES, read_pixels, write_pixels


def random_pixels(seed: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("suffix", [*CAMERA_SUFFIXES, ".PNG"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (3, 3), (5, 8), (7, 4, 3)])
def test_pixels_come_back_bit_by_bit(
    tmp_path: Path, suffix: str, dtype: type, shape: tuple[int, ...]
) -> None:
    pixels = random_pixels(0, shape, dtype)
    write_pixels(tmp_path / f"a{suffix}", pixels)
    found = read_pixels(tmp_path / f"a{suffix}")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_other_peoples_files_read_alike(tmp_path: Path) -> None:
    pixels = random_pixels(1, (9, 14, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression="tiff_lzw")
    deep = random_pixels(2, (9, 14, 3), np.uint16)
    tifffile.imwrite(
        tmp_path / "deep.tif", deep, photometric="rgb", compression="zlib", tile=(16, 16)
    )
    mosaic = random_pixels(3, (6, 8), np.uint16)
    tifffile.imwrite(tmp_path / "raw.tif", mosaic, photometric="cfa")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), pixels)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif"), pixels)
    np.testing.assert_array_equal(read_pixels(tmp_path / "deep.tif"), deep)
    np.testing.assert_array_equal(read_pixels(tmp_path / "raw.tif"), mosaic)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA", "CMYK", "F"])
def test_other_kinds_are_refused_by_name(tmp_path: Path, mode: str, suffix: str) -> None:
    if suffix == ".png" and mode in ("CMYK", "F"):
        pytest.skip("PNG has no such mode")
    path = tmp_path / f"a{suffix}"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(
        ValueError, match="must be one image of 8 or 16 bits, RGB or one plane, got"
    ):
        read_pixels(path)


def test_transparency_and_several_images_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", transparency=(0, 0, 0))
    with pytest.raises(ValueError, match="got 8-bit RGB with a transparent colour"):
        read_pixels(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 4, 4), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match="got 2 images"):
        read_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_whole(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path / f"a{suffix}"
    write_pixels(path, random_pixels(4, (9, 14), np.uint16))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3), "flips")):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)), "length")])
    try:
        pixels = read_pixels(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert pixels.dtype in (np.uint8, np.uint16)
        assert pixels.ndim in (2, 3)


def test_only_known_endings_depths_and_shapes_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in one of \.png .*got 'a\.jpg'"):
        write_pixels(tmp_path / "a.jpg", np.zeros((2, 2), np.uint8))
    with pytest.raises(TypeError, match="must be uint8 or uint16, got float64"):
        write_pixels(tmp_path / "a.png", np.zeros((2, 2)))  # type: ignore[arg-type]
    for shape in ((4,), (2, 2, 2), (0, 3), (2, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"shape \[H, W\] or \[H, W, 3\]"):
            write_pixels(tmp_path / "a.png", np.zeros(shape, np.uint8))
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        read_pixels(tmp_path / "a.png")
