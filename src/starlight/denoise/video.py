"""Video files, y4m pipes and cameras through PyAV; frames come and go one at a time.

Sound, subtitles and the times of frames are those of the source. PyAV is optional: it brings a
build of FFmpeg along, which images do not need.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from starlight.denoise.rounding import To8Bit, to_8_bits
from starlight.files import complete_or_absent

VIDEO_FORMATS: Final = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm",
    ".avi": "avi", ".y4m": "yuv4mpegpipe",
}  # fmt: skip
VIDEO_SUFFIXES: Final = tuple(VIDEO_FORMATS)
PACKAGES: Final = 'pip install "starlight[video]"'
_Y4M: Final = "yuv4mpegpipe"
_DEFAULT_CODECS: Final = {_Y4M: "wrapped_avframe", "webm": "libvpx-vp9"}
_CODEC: Final = "libx264"
# Nearly without loss: what denoising brings must survive the encoder.
_CODEC_OPTIONS: Final = {
    "libx264": {"crf": "14", "preset": "medium"},
    "libx265": {"crf": "14", "preset": "medium"},
    "libvpx-vp9": {"crf": "18", "b": "0", "row-mt": "1"},
}

Frame = NDArray[Any]


@dataclass(frozen=True)
class VideoSettings:
    """How a video is written, and how much of it.

    codec     FFmpeg's name; None: libx264, libvpx-vp9 in WebM, none in y4m
    options   of the codec, such as {"crf": "10"}; over ours
    frames    stop after so many; None: to the end
    to_8bit   how the 16 bits that FFmpeg gives of deeper frames are rounded; None: they are kept
    """

    codec: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    frames: int | None = None
    to_8bit: To8Bit | None = None


def load_av() -> Any:
    """PyAV; raises ImportError with the command that installs it."""
    try:
        return import_module("av")
    except ImportError as error:
        raise ImportError(f"video: PyAV must be installed, got {error}; {PACKAGES}") from error


def is_camera(path: Path) -> bool:
    """Whether a path is a device, as /dev/video0 is."""
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False


def denoise_video(
    function: Callable[[Frame], Frame],
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    settings: VideoSettings | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    check_dtype: Callable[[Any], None] = lambda dtype: None,
) -> int:
    """Put function(frame) of each frame of a video into another; returns how many.

    function: RGB [H, W, 3], uint8, or uint16 for frames of more than 8 bits, to the same.
    source: a file, a camera, or a stream of y4m. target: a file, complete or absent, or a stream
    that takes y4m frame by frame. progress: called with (frames done, frames in all where known).
    check_dtype: raises where function does not take such frames.
    Frames keep their times, sound and subtitles are copied; frames that are to be shown turned are
    turned. Raises ValueError for a damaged file, one without video, frames that change size, and
    sound that the target's container does not take; ImportError without PyAV.
    """
    av = load_av()
    settings = settings or VideoSettings()
    name = str(source) if isinstance(source, Path) else "stdin"
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(_open_source(av, source))
            container_format, place = _Y4M, target
            if isinstance(target, Path):
                container_format = VIDEO_FORMATS[target.suffix.lower()]
                place = stack.enter_context(complete_or_absent(target))
            writer = stack.enter_context(
                av.open(
                    str(place) if isinstance(place, Path) else place,
                    "w", format=container_format, options=_container_options(container_format),
                )
            )  # fmt: skip
            job = _Job(av, reader, writer, container_format, settings, name)
            return job.run(function, progress, check_dtype)
        except (av.error.FFmpegError, IndexError) as error:
            if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise ValueError(f"video: {name} must be an intact video file, got {error}") from None


def _container_options(container_format: str) -> dict[str, str]:
    # y4m is a pipe: each frame leaves as it comes.
    return {"flush_packets": "1"} if container_format == _Y4M else {}


def _open_source(av: Any, source: Path | BinaryIO) -> Any:
    if not isinstance(source, Path):
        return av.open(source, format=_Y4M)
    if is_camera(source):
        if not any("v4l2" in name for name in av.formats_available):
            raise ValueError(
                f"video: PyAV must be built with v4l2 for a camera, got {source}; or: "
                f"ffmpeg -f v4l2 -i {source} -f yuv4mpegpipe - | starlight denoise - OUT"
            )
        return av.open(str(source), format="v4l2")
    if not source.is_file():
        raise FileNotFoundError(f"video: path must be an existing file, got {source}")
    return av.open(str(source))


class _Job:
    """One video on its way from a container to another."""

    def __init__(
        self, av: Any, reader: Any, writer: Any, container_format: str, settings: VideoSettings,
        name: str,
    ) -> None:  # fmt: skip
        self.av, self.reader, self.writer = av, reader, writer
        self.settings, self.name, self.container_format = settings, name, container_format
        if not reader.streams.video:
            raise ValueError(f"video: {name} must hold a video stream, got none")
        self.source = reader.streams.video[0]
        self.source.thread_type = "AUTO"
        self.target: Any = None
        self.copied: dict[int, Any] = {}
        self.size: tuple[int, int] | None = None
        reformatter = av.video.reformatter
        self.to_rgb, self.from_rgb = reformatter.VideoReformatter(), reformatter.VideoReformatter()
        flags = reformatter.Interpolation
        self.scaling = flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT
        self.done = 0
        self.end = Fraction(0)  # of the packets so far, seconds
        self.waiting: list[Any] = []  # packets of copied streams that came before the first frame

    def run(
        self,
        function: Callable[[Frame], Frame],
        progress: Callable[[int, int | None], None],
        check_dtype: Callable[[Any], None],
    ) -> int:
        copied = [] if self.container_format == _Y4M else self._copied_streams()
        total = self._total()
        for packet in self.reader.demux([self.source, *copied]):
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self.end = max(self.end, end)
            if packet.stream is not self.source:
                self._copy(packet)
                continue
            for frame in packet.decode():
                self._denoise(frame, function, check_dtype)
                progress(self.done, total)
                if self.done == self.settings.frames:
                    return self._finish()
        self._check_end()
        return self._finish()

    def _check_end(self) -> None:
        """Raise ValueError where the packets end before the time that the container promises."""
        if not self.reader.duration:
            return
        promised = Fraction(self.reader.duration, self.av.time_base)
        start = Fraction(self.reader.start_time or 0, self.av.time_base)
        frame = 1 / (self.source.average_rate or Fraction(25))
        if self.end - start < promised - max(2 * frame, Fraction(1, 10)):
            raise ValueError(
                f"video: {self.name} must last {float(promised):.2f} s, got "
                f"{float(self.end - start):.2f} s: it is truncated"
            )

    def _copied_streams(self) -> list[Any]:
        streams = [*self.reader.streams.audio, *self.reader.streams.subtitles]
        for stream in streams:
            try:
                self.copied[stream.index] = self.writer.add_stream_from_template(stream)
            except (ValueError, self.av.error.FFmpegError) as error:
                raise ValueError(
                    f"video: {self.container_format} must take the {stream.type} of {self.name} "
                    f"({stream.codec_context.name}), got {error}; .mkv takes any"
                ) from None
        return streams

    def _total(self) -> int | None:
        """Frames in all, as far as the container tells."""
        found = self.source.frames or None
        if found is None and self.reader.duration and self.source.average_rate:
            found = round(self.reader.duration / self.av.time_base * self.source.average_rate)
        wanted = self.settings.frames
        return wanted if found is None else min(found, wanted or found)

    def _copy(self, packet: Any) -> None:
        if packet.dts is None:
            return
        if self.target is None:
            self.waiting.append(packet)
            return
        packet.stream = self.copied[packet.stream.index]
        self.writer.mux(packet)

    def _denoise(
        self, frame: Any, function: Callable[[Frame], Frame], check_dtype: Callable[[Any], None]
    ) -> None:
        if frame.is_corrupt:
            raise ValueError(f"frame {self.done} is damaged")
        size = (frame.width, frame.height)
        if self.size is None:
            self.size = size
        elif size != self.size:
            raise ValueError(
                f"video: frames of {self.name} must keep their size, got "
                f"{self.size[0]} x {self.size[1]}, then {size[0]} x {size[1]} at frame {self.done}"
            )
        deep = max(part.bits for part in frame.format.components) > 8
        deep_out = deep and self.settings.to_8bit is None
        check_dtype(np.uint16 if deep_out else np.uint8)
        matrix, value_range = _colour(self.av, frame)
        pixels = self.to_rgb.reformat(
            frame,
            format="rgb48le" if deep else "rgb24",
            src_colorspace=matrix,
            src_color_range=value_range,
            dst_color_range="JPEG",
            interpolation=self.scaling,
        ).to_ndarray()
        if deep and self.settings.to_8bit is not None:
            pixels = to_8_bits(pixels, self.settings.to_8bit)
        turns = round(frame.rotation / 90) % 4
        denoised = np.ascontiguousarray(function(np.ascontiguousarray(np.rot90(pixels, turns))))
        if self.target is None:
            self._start(frame, denoised.shape[1], denoised.shape[0], deep_out)
        picture = self.av.VideoFrame.from_ndarray(
            denoised, format="rgb48le" if deep_out else "rgb24"
        )
        out = self.from_rgb.reformat(
            picture,
            format=self.target.codec_context.pix_fmt,
            src_color_range="JPEG",
            dst_colorspace=matrix,
            dst_color_range=value_range,
            interpolation=self.scaling,
        )
        out.pts, out.time_base = frame.pts, frame.time_base
        if frame.duration:
            out.duration = frame.duration
        self.writer.mux(self.target.encode(out))
        self.done += 1

    def _start(self, frame: Any, width: int, height: int, deep: bool) -> None:
        """The encoder: the source's pixel format where the codec has it, its times and colours."""
        codec = self.settings.codec or _DEFAULT_CODECS.get(self.container_format, _CODEC)
        rate = self.source.average_rate or self.source.base_rate or Fraction(25)
        options = {**_CODEC_OPTIONS.get(codec, {}), **dict(self.settings.options)}
        try:
            self.target = self.writer.add_stream(codec, rate=rate, options=options)
        except (ValueError, self.av.codec.codec.UnknownCodecError) as error:
            raise ValueError(
                f"video: codec must be one that PyAV has and {self.container_format} takes, got "
                f"{codec!r} ({error})"
            ) from None
        context = self.target.codec_context
        context.width, context.height = width, height
        context.pix_fmt = self._pixel_format(frame, codec, deep, width, height)
        context.time_base = self.target.time_base = self.source.time_base
        source = self.source.codec_context
        if source.sample_aspect_ratio:
            context.sample_aspect_ratio = source.sample_aspect_ratio
        for name in ("color_primaries", "color_trc", "colorspace", "color_range"):
            setattr(context, name, getattr(source, name))
        self.writer.metadata.update(self.reader.metadata)
        self.writer.start_encoding()
        waiting, self.waiting = self.waiting, []
        for packet in waiting:
            self._copy(packet)

    def _pixel_format(self, frame: Any, codec: str, deep: bool, width: int, height: int) -> str:
        """As the source samples colour; at odd sizes in full, since half a sample there is none."""
        known = [item.name for item in self.av.Codec(codec, "w").video_formats or ()]
        wanted = frame.format.name
        if deep != (max(part.bits for part in frame.format.components) > 8):
            wanted = "yuv420p"
        subsampled = any(
            part.width < frame.width or part.height < frame.height
            for part in frame.format.components
        )
        if subsampled and (width % 2 or height % 2) and self.container_format != _Y4M:
            wanted = "yuv444p10le" if deep else "yuv444p"
        candidates = [
            wanted,
            "yuv420p10le" if deep else "yuv420p",
            "yuv444p16le" if deep else "yuv444p",
        ]
        for name in candidates:
            if not known or name in known:
                return name
        if deep:
            raise ValueError(
                f"video: codec must take frames of more than 8 bits, got {codec}; name another "
                "with --codec, or --to-8bit"
            )
        return known[0]

    def _finish(self) -> int:
        if self.target is None:
            raise ValueError(f"video: {self.name} must hold a frame, got none")
        self.writer.mux(self.target.encode(None))
        return self.done


def _colour(av: Any, frame: Any) -> tuple[Any, Any]:
    """(matrix, range) of a frame; unnamed ones as players guess: BT.709 from 720 rows, narrow."""
    spaces = av.video.reformatter.Colorspace
    named = {
        1: spaces.ITU709,
        4: spaces.FCC,
        5: spaces.ITU601,
        6: spaces.ITU601,
        7: spaces.SMPTE240M,
        9: spaces.BT2020,
        10: spaces.BT2020,
    }
    guess = spaces.ITU709 if frame.height >= 720 else spaces.ITU601
    matrix = named.get(int(frame.colorspace), guess)
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    return matrix, "JPEG" if full else "MPEG"


def raw_frames(stream: BinaryIO, height: int, width: int, dtype: Any) -> Iterator[Frame]:
    """RGB frames [H, W, 3] of a stream of bare samples, 16-bit ones little-endian.

    Raises ValueError when it ends within a frame.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    size = height * width * 3 * kind.itemsize
    count = 0
    while data := _exactly(stream, size):
        if len(data) != size:
            raise ValueError(
                f"frames: stream must end after a frame of {size} bytes, got {len(data)} "
                f"after frame {count}"
            )
        count += 1
        yield np.frombuffer(data, kind).reshape(height, width, 3).astype(dtype, copy=False)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """size bytes, fewer at the end alone."""
    parts: list[bytes] = []
    missing = size
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def parse_options(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`key=value` words; raises ValueError for another form."""
    pairs = []
    for word in words:
        key, found, value = word.partition("=")
        if not (key and found):
            raise ValueError(f"video: codec option must read NAME=VALUE, got {word!r}")
        pairs.append((key, value))
    return tuple(pairs)
