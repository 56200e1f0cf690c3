"""Image files of every kind: every bit, EXIF and profile kept; damage told, never half a file."""

import struct
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from starlight.denoise.pictures import (
    ALPHA_SUFFIXES,
    DEEP_SUFFIXES,
    PICTURE_SUFFIXES,
    Picture,
    check_target,
    open_picture,
    write_picture,
)
from starlight.denoise.rounding import to_8_bits

ICC = {
    colours: ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for colours in (3, 4)
}
TAGS = {271: "Maker", 272: "Model 3", 274: 6, 282: 72.0, 283: 72.0, 296: 2, 305: "Firmware 1"}
SHOT = {33434: 1 / 60, 36867: "2024:05:06 07:08:09", 37500: b"\x01\x02\x03maker"}
GPS = {1: "N", 29: "2024:05:06"}


def exif_bytes() -> bytes:
    exif = Image.Exif()
    exif.update(TAGS)
    exif.get_ifd(34665).update(SHOT)
    exif.get_ifd(34853).update(GPS)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def exif_content(data: bytes | None) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    assert data is not None
    exif = Image.Exif()
    exif.load(data)
    plain = {tag: value for tag, value in exif.items() if tag not in (34665, 34853)}
    return plain, dict(exif.get_ifd(34665)), dict(exif.get_ifd(34853))


def noise(height: int, width: int, channels: int, dtype: Any) -> NDArray[Any]:
    rng = np.random.default_rng([height, width, channels])
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def picture(pixels: NDArray[Any], exif: bytes | None = None, icc: bytes | None = None) -> Picture:
    return Picture(pixels.shape, pixels.dtype, lambda: iter((pixels,)), exif, icc)  # type: ignore[arg-type]


def read(path: Path) -> tuple[NDArray[Any], Picture]:
    with open_picture(path) as opened:
        return np.concatenate(list(opened.rows())), opened


CASES = [
    (suffix, channels, dtype)
    for suffix in PICTURE_SUFFIXES
    for channels in (1, 2, 3, 4)
    for dtype in (np.uint8, np.uint16)
    if (channels % 2 or suffix in ALPHA_SUFFIXES)
    and (dtype == np.uint8 or suffix in DEEP_SUFFIXES)
    and not (suffix == ".webp" and channels < 3)  # has no grey
]


@pytest.mark.parametrize(("suffix", "channels", "dtype"), CASES)
def test_pixels_exif_and_profile_come_back(
    tmp_path: Path, suffix: str, channels: int, dtype: Any
) -> None:
    pixels, path = noise(131, 47, channels, dtype), tmp_path / f"a{suffix}"
    icc = ICC.get(channels)
    bands = (pixels[top : top + 50] for top in range(0, 131, 50))
    write_picture(path, bands, picture(pixels, exif_bytes(), icc))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    found, like = read(path)
    assert (found.shape, found.dtype, like.dtype) == (pixels.shape, dtype, dtype)
    if suffix in (".jpg", ".jpeg"):
        assert np.abs(found.astype(int) - pixels).mean() < 6
    else:
        np.testing.assert_array_equal(found, pixels)
    if suffix != ".bmp":
        assert exif_content(like.exif) == (TAGS, SHOT, GPS)
        assert like.icc_profile == icc
    if suffix in (".tif", ".tiff"):  # another reader agrees
        np.testing.assert_array_equal(tifffile.imread(path).reshape(pixels.shape), pixels)
    elif dtype == np.uint8:
        with Image.open(path) as others:
            np.testing.assert_array_equal(np.array(others).reshape(pixels.shape), found)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 80), st.integers(1, 50), st.sampled_from([1, 2, 3, 4]),
       st.sampled_from([np.uint8, np.uint16]), st.sampled_from([".png", ".tif"]),
       st.integers(1, 40))  # fmt: skip
def test_rows_are_written_in_any_portions(
    tmp_path: Path, height: int, width: int, channels: int, dtype: Any, suffix: str, band: int
) -> None:
    pixels, path = noise(height, width, channels, dtype), tmp_path / f"a{suffix}"
    bands = (pixels[top : top + band] for top in range(0, height, band))
    write_picture(path, bands, picture(pixels))
    np.testing.assert_array_equal(read(path)[0], pixels)
    if suffix == ".png":
        others = imagecodecs.png_decode(path.read_bytes())
        np.testing.assert_array_equal(others.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (16, 32)},
        {"tile": (16, 32), "compression": "lzw"},
        {"rowsperstrip": 7},
        {"planarconfig": "separate"},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_any_layout_is_read(tmp_path: Path, layout: dict[str, Any], dtype: Any) -> None:
    pixels = noise(61, 75, 3, dtype)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in layout else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", metadata=None, **layout)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], pixels)


def test_palettes_and_transparent_colours_become_what_they_show(tmp_path: Path) -> None:
    shown = np.repeat(noise(4, 5, 3, np.uint8), 8, axis=1)
    palette = Image.fromarray(shown).quantize(256)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png")[0], np.array(palette.convert("RGB")))
    Image.fromarray(shown).save(tmp_path / "t.png", transparency=tuple(map(int, shown[0, 0])))
    found, _ = read(tmp_path / "t.png")
    assert found.shape[2] == 4
    assert found[0, 0, 3] == 0
    np.testing.assert_array_equal(found[..., :3], shown)


def test_a_files_content_decides_not_its_name(tmp_path: Path) -> None:
    pixels = noise(9, 8, 3, np.uint8)
    write_picture(tmp_path / "a.png", [pixels], picture(pixels))
    (tmp_path / "a.png").rename(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], pixels)


def test_png_keeps_its_own_colour_chunks(tmp_path: Path) -> None:
    pixels = noise(5, 6, 3, np.uint8)
    gamma = (b"gAMA", struct.pack(">I", 45455))
    like = Picture((5, 6, 3), pixels.dtype, lambda: iter((pixels,)), png_chunks=(gamma,))
    write_picture(tmp_path / "a.png", [pixels], like)
    assert read(tmp_path / "a.png")[1].png_chunks == (gamma,)


def test_sixteen_bits_round_to_eight_as_named() -> None:
    values = np.arange(65536, dtype=np.uint16)
    exact = values.astype(np.float64)
    np.testing.assert_array_equal(to_8_bits(values, "nearest"), np.floor(exact / 257 + 0.5))
    np.testing.assert_array_equal(to_8_bits(values, "floor"), np.floor(exact / 256))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("F", ".tif"), ("1", ".png")]
)
def test_other_modes_are_refused(tmp_path: Path, mode: str, suffix: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match="must be an intact image file"):
        read(tmp_path / f"a{suffix}")


def test_several_images_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(4, 4, 3, np.uint8)) for _ in range(2)]
    frames[1].putpixel((0, 0), (1, 2, 3))
    for name in ("a.webp", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match=r"2 images|one image, got 2|animation"):
            read(tmp_path / name)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    pixels, path = noise(61, 75, 3, np.uint8), tmp_path / f"a{suffix}"
    write_picture(path, [pixels], picture(pixels, exif_bytes(), ICC[3]))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"a\.\w+ must be an intact image file"):
        read(path)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_refused_or_read_whole(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    pixels, path = noise(19, 23, 3, np.uint8), tmp_path / f"a{suffix}"
    write_picture(path, [pixels], picture(pixels))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3), "flips")):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found, like = read(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert found.shape == like.shape


def test_what_a_format_cannot_hold_is_refused_with_the_remedy() -> None:
    for pixels, name, rule in (
        (noise(2, 2, 3, np.uint16), "a.jpg", r"16 bits must end in one of \.png .*--to-8bit"),
        (noise(2, 2, 4, np.uint8), "a.jpg", r"alpha must end in one of \.png"),
        (noise(2, 2, 3, np.uint8), "a.gif", r"name must end in one of \.png .*got 'a\.gif'"),
    ):
        with pytest.raises(ValueError, match=rule):
            check_target(name, picture(pixels))


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_a_failing_source_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    pixels = noise(20, 20, 3, np.uint8)

    def bands() -> Any:
        yield pixels[:10]
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        write_picture(tmp_path / f"a{suffix}", bands(), picture(pixels))
    assert not list(tmp_path.iterdir())
