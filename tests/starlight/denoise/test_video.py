"""Videos: frames, times, sound and colours; pipes; faults."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from starlight.denoise.video import VideoSettings, denoise_video, parse_options, raw_frames

av = pytest.importorskip("av", reason="video needs PyAV")

UNEVEN = (0, 40, 90, 100, 300, 310, 420, 500)  # milliseconds
LOSSLESS = VideoSettings(options=(("qp", "0"),))


def frame_pixels(number: int, width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    blue = np.full_like(rows, 90 + 10 * number)
    return np.stack([columns * 2 + number * 3, rows * 3, blue], axis=-1).astype(np.uint8)


def make_video(
    path: Path,
    pixel_format: str = "yuv420p",
    times: Sequence[int] = UNEVEN,
    sound: bool = True,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
) -> None:
    """A BT.709 video of a moving ramp, of uneven times, with sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options={"qp": "0"})
        video.width, video.height = size
        video.pix_fmt = pixel_format
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        video.codec_context.colorspace = video.codec_context.color_primaries = 1
        video.codec_context.color_range = 1
        audio = container.add_stream("aac", rate=8000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(frame_pixels(number, *size), format="rgb24")
            # y4m does not say which matrix: small frames are taken for BT.601.
            matrix = "ITU709" if codec == "libx264" else "ITU601"
            frame = frame.reformat(
                format=pixel_format, dst_colorspace=matrix, dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        if audio is not None:
            rng = np.random.default_rng(0)
            for start in range(0, 4096, 1024):
                noise = rng.normal(0, 0.1, (1, 1024)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 8000, start
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        container.mux(video.encode(None))


def read_video(path: Path) -> tuple[list[NDArray[Any]], list[float], list[bytes], Any]:
    """Luma planes, times, packets of sound, what the stream says of its colours."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        stream = container.streams.video[0].codec_context
        colours = (stream.pix_fmt, stream.colorspace, stream.color_primaries, stream.color_range)
    with av.open(str(path)) as container:
        has_sound = bool(container.streams.audio)
        packets = container.demux(audio=0) if has_sound else []
        sound = [bytes(packet) for packet in packets if packet.size]
    planes = [(frame.to_ndarray(), frame.height) for frame in frames]
    luma = [plane[0] if plane.ndim == 3 else plane[:height] for plane, height in planes]
    return luma, [frame.time for frame in frames], sound, colours


@pytest.mark.parametrize(
    ("suffix", "pixel_format"),
    [(".mp4", "yuv420p"), (".mkv", "yuv420p10le"), (".mkv", "yuv444p"), (".mov", "yuv422p")],
)
def test_times_sound_and_colours_are_the_sources(
    tmp_path: Path, suffix: str, pixel_format: str
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    make_video(source, pixel_format)
    kinds = []

    def same(frame: NDArray[Any]) -> NDArray[Any]:
        kinds.append(frame.dtype)
        return frame

    assert denoise_video(same, source, target, LOSSLESS) == len(UNEVEN)
    luma, times, sound, colours = read_video(source)
    luma_out, times_out, sound_out, colours_out = read_video(target)
    assert times_out == times == [time / 1000 for time in UNEVEN]
    assert sound_out == sound != []
    assert colours_out == colours == (pixel_format, 1, 1, 1)
    deep = "10" in pixel_format
    assert set(kinds) == {np.dtype(np.uint16 if deep else np.uint8)}
    for before, after in zip(luma, luma_out, strict=True):
        # Of RGB there and back, chroma by interpolation: two steps of 8 bits, as seen.
        assert np.abs(before.astype(int) - after).max() <= (8 if deep else 2)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


def test_deep_frames_are_rounded_when_told(tmp_path: Path) -> None:
    make_video(tmp_path / "in.mkv", "yuv420p10le", sound=False)
    kinds = set()

    def same(frame: NDArray[Any]) -> NDArray[Any]:
        kinds.add(frame.dtype)
        return frame

    settings = VideoSettings(to_8bit="nearest", frames=3)
    assert denoise_video(same, tmp_path / "in.mkv", tmp_path / "out.mkv", settings) == 3
    assert kinds == {np.dtype(np.uint8)}
    assert read_video(tmp_path / "out.mkv")[3][0] == "yuv420p"


def test_what_the_function_gives_is_what_is_written(tmp_path: Path) -> None:
    make_video(tmp_path / "in.mkv", sound=False)
    grey = np.full((48, 64, 3), 128, np.uint8)
    denoise_video(lambda _: grey, tmp_path / "in.mkv", tmp_path / "out.mkv", LOSSLESS)
    luma, *_ = read_video(tmp_path / "out.mkv")
    assert {int(value) for plane in luma for value in np.unique(plane)} == {
        126
    }  # 16 + 128 * 219/255


def test_odd_sizes_keep_full_chroma(tmp_path: Path) -> None:
    make_video(tmp_path / "in.mkv", "yuv444p", size=(35, 23), sound=False)
    assert denoise_video(lambda x: x, tmp_path / "in.mkv", tmp_path / "out.mkv") == len(UNEVEN)
    luma, *_, colours = read_video(tmp_path / "out.mkv")
    assert (luma[0].shape[0], colours[0]) == (23, "yuv444p")


def test_y4m_goes_through_a_pipe_frame_by_frame(tmp_path: Path) -> None:
    make_video(tmp_path / "in.y4m", codec="wrapped_avframe", sound=False, times=(0, 1, 2))
    source, target = io.BytesIO((tmp_path / "in.y4m").read_bytes()), io.BytesIO()
    sizes = []
    count = denoise_video(
        lambda x: x, source, target, progress=lambda *_: sizes.append(len(target.getvalue()))
    )
    assert count == 3
    (tmp_path / "out.y4m").write_bytes(target.getvalue())
    before, after = read_video(tmp_path / "in.y4m"), read_video(tmp_path / "out.y4m")
    assert len(after[0]) == 3
    for one, other in zip(before[0], after[0], strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2
    assert sizes[0] < sizes[-1]  # the first left before the last came


def test_a_truncated_video_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for suffix in (".mkv", ".mp4"):
        source = tmp_path / f"in{suffix}"
        make_video(source)
        source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"truncated|must be an intact video file"):
            denoise_video(lambda x: x, source, tmp_path / f"out{suffix}")
        source.unlink()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "rule"), [(b"", "intact video file"), (b"hello" * 99, "intact video file")]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "in.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=rule):
        denoise_video(lambda x: x, tmp_path / "in.mp4", tmp_path / "out.mp4")
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        denoise_video(lambda x: x, tmp_path / "none.mp4", tmp_path / "out.mp4")


def test_frames_that_change_size_are_refused(tmp_path: Path) -> None:
    """Two MPEG-4 streams of two sizes, one after the other, as a bare stream may be."""
    parts = []
    for size in ((64, 48), (32, 32)):
        path = tmp_path / "part.m4v"
        with av.open(str(path), "w", format="m4v") as container:
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            for number in range(3):
                pixels = frame_pixels(number, *size)
                container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(video.encode(None))
        parts.append(path.read_bytes())
        path.unlink()
    (tmp_path / "in.m4v").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"must keep their size, got 64 x 48, then 32 x 32"):
        denoise_video(lambda x: x, tmp_path / "in.m4v", tmp_path / "out.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.m4v"]


def test_unknown_codecs_are_refused(tmp_path: Path) -> None:
    make_video(tmp_path / "in.mkv", sound=False)
    with pytest.raises(ValueError, match="codec must be one that PyAV has"):
        denoise_video(
            lambda x: x, tmp_path / "in.mkv", tmp_path / "out.mkv", VideoSettings(codec="none")
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_raw_frames_come_whole_or_not(dtype: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), dtype)
    data = frames.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    np.testing.assert_array_equal(list(raw_frames(io.BytesIO(data), 3, 4, dtype)), frames)
    with pytest.raises(ValueError, match=r"after a frame of \d+ bytes, got \d+ after frame 1"):
        list(raw_frames(io.BytesIO(data[:-1]), 3, 4, dtype))


def test_codec_options_read_name_and_value() -> None:
    assert parse_options(["crf=10", "preset="]) == (("crf", "10"), ("preset", ""))
    with pytest.raises(ValueError, match="must read NAME=VALUE, got 'crf'"):
        parse_options(["crf"])
