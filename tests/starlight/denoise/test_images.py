"""Image files: every bit kept, nothing converted in silence, nothing half written."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from starlight.denoise.files import map_images
from starlight.denoise.images import IMAGE_SUFFIXES, open_rgb, read_image, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".tif", ".tiff"])
def test_lossless_formats_keep_every_bit(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", PIXELS)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), PIXELS)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    smooth = np.zeros((32, 32, 3), np.uint8)
    smooth[:, ::2] = (200, 30, 60)  # columns of one pixel: subsampled chroma would smear them
    write_image(tmp_path / "a.jpg", smooth)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth).max() < 24


def png_of_16_bits(path: Path) -> None:
    """A 2 x 2 colour PNG of 16 bits, which Pillow itself does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + bytes(range(12))) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "F"])
def test_other_modes_are_refused_by_name_with_the_remedy(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif" if mode in ("CMYK", "F") else tmp_path / "a.png"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(ValueError, match=r"must be 8-bit RGB, got .*; convert it first") as raised:
        read_image(path)
    assert f"got {mode}" in str(raised.value) or "16-bit" in str(raised.value)


def test_sixteen_bits_transparency_and_animation_are_refused(tmp_path: Path) -> None:
    png_of_16_bits(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="got 16-bit RGB"):
        read_image(tmp_path / "deep.png")
    Image.fromarray(PIXELS).save(tmp_path / "clear.png", transparency=(1, 2, 3))
    with pytest.raises(ValueError, match="got RGB with a transparent colour"):
        read_image(tmp_path / "clear.png")
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ValueError, match="got 2 frames"):
        read_image(tmp_path / "moving.webp")


def test_missing_empty_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        open_rgb(tmp_path / "none.png")
    for content in (b"", b"hello"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match="must be a readable image file"):
            open_rgb(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_whole(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, PIXELS)
    content = bytearray(path.read_bytes())
    length = data.draw(st.integers(0, len(content)), "length")
    for _ in range(data.draw(st.integers(0, 3), "flips")):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[:length])
    try:
        pixels = read_image(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, PIXELS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="must be"):
        read_image(path)


def test_only_known_endings_and_rgb_bytes_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in one of \.png .*got 'a\.gif'"):
        write_image(tmp_path / "a.gif", PIXELS)
    with pytest.raises(TypeError, match="pixels must be uint8, got float64"):
        write_image(tmp_path / "a.png", PIXELS / 255.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \[H, W, 3\], got \[9, 14\]"):
        write_image(tmp_path / "a.png", PIXELS[..., 0])
    with pytest.raises(FileNotFoundError, match="folder must exist"):
        write_image(tmp_path / "none" / "a.png", PIXELS)
    assert not list(tmp_path.iterdir())


def negative(pixels: np.ndarray, _: str) -> np.ndarray:
    return 255 - pixels


def test_a_folder_maps_to_a_folder_with_the_same_names(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("b.png", "a.tif"):
        write_image(source / name, PIXELS)
    (source / "notes.txt").write_text("left alone")
    written = map_images(negative, source, tmp_path / "out" / "deep")
    assert [path.name for path in written] == ["a.tif", "b.png"]
    for path in written:
        np.testing.assert_array_equal(read_image(path), 255 - PIXELS)


def test_metadata_goes_along(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: viewers turn source and result alike
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif, icc_profile=b"profile")
    (written,) = map_images(negative, tmp_path / "a.jpg", tmp_path / "b.png")
    with Image.open(written) as image:
        assert image.getexif()[0x0112] == 6
        assert image.info["icc_profile"] == b"profile"
        assert image.size == (14, 9)


def test_targets_that_make_no_sense_are_refused_before_any_work(tmp_path: Path) -> None:
    def never(pixels: np.ndarray, name: str) -> np.ndarray:
        raise AssertionError(name)

    source = tmp_path / "a.png"
    write_image(source, PIXELS)
    for given_source, target, rule in (
        (source, tmp_path, "target must not be source itself"),
        (source, source, "target must not be source itself"),
        (tmp_path, tmp_path, "target must not be source itself"),
        (tmp_path, source, "target must be a folder as source is"),
        (source, tmp_path / "a.bmp", "name must end in one of"),
    ):
        with pytest.raises(ValueError, match=rule):
            map_images(never, given_source, target)
    with pytest.raises(FileNotFoundError, match="source must exist"):
        map_images(never, tmp_path / "none", tmp_path / "out")


def test_a_failure_leaves_the_former_file_and_nothing_beside_it(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "out.png"
    write_image(source, PIXELS)
    target.write_bytes(b"former")

    def grey(pixels: np.ndarray, _: str) -> np.ndarray:
        return pixels[..., 0]

    with pytest.raises(ValueError, match="shape"):
        map_images(grey, source, target)
    assert target.read_bytes() == b"former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out.png"]
