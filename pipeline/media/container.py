"""Opens one media file safely and yields its decoded frames, nothing else.

One demuxer (chosen by content), the `file` protocol only, one thread, no reference to another
file ever followed. Damage that the decoder notices raises instead of being concealed; entropy
coding lets some flipped bits pass for a picture, which no reader can tell.
"""

import errno
import logging
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.sniff import Format

logger = logging.getLogger(__name__)

av.logging.set_level(None)  # a broken file is a row with a reason, not lines on a terminal

# Containers that state their duration at the start and simply end when cut off.
_MIN_MISSING_S = 1.0
_MIN_MISSING_SHARE = 0.02
_NUM_PROBED_PACKETS = 240
_MAX_REORDERED = 16  # pictures that a decoder may hold back


class Budget:
    """Time spent inside the decoder; what the caller does between frames does not count."""

    def __init__(self, uri: str, limit_s: float) -> None:
        self.uri = uri
        self.limit_s = limit_s
        self.spent_s = 0.0

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Raises MediaError `timeout` once the limit is used up."""
        if self.spent_s > self.limit_s:
            raise MediaError(
                "timeout", f"{self.uri}: {self.spent_s:.0f} s of decoding, limit {self.limit_s:g} s"
            )
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - start_s


def open_container(
    path: Path, uri: str, format: Format, limits: MediaLimits, *, max_pixels: int
) -> InputContainer:
    """Raises MediaError `broken_container` or `too_many_streams`."""
    # The prefix keeps names such as `a:b.mp4` and `-` from being read as protocols.
    name = "file:" + os.path.abspath(path)
    options = {
        "protocol_whitelist": "file",
        "max_pixels": str(max_pixels),  # for the pictures that are decoded while opening
    }
    try:
        container = av.open(
            name, "r", format=format.demuxer, options=options, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError("broken_container", f"{uri}: {reason(error)}") from error
    if len(container.streams) > limits.max_streams:
        num_streams = len(container.streams)
        container.close()
        raise MediaError(
            "too_many_streams", f"{uri}: {num_streams} streams, limit {limits.max_streams}"
        )
    return container


def select_video_stream(container: InputContainer, uri: str, max_pixels: int) -> VideoStream:
    """The first video stream that is no cover picture, ready for single-threaded decoding.

    Raises MediaError `no_video_stream`, `unsupported_codec` or `too_many_pixels`.
    """
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not Disposition(s.disposition) & covers]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise MediaError("no_video_stream", f"{uri}: no video stream, only {kinds}")
    if any(Disposition(s.disposition) & Disposition.dependent for s in streams):
        raise MediaError("unsupported_codec", f"{uri}: a picture made of {len(streams)} tiles")
    stream = streams[0]
    if stream.codec_context is None:
        raise MediaError("unsupported_codec", f"{uri}: the header names no known codec")
    check_pixels(stream.width, stream.height, uri, max_pixels)
    stream.thread_count = 1
    stream.thread_type = "NONE"
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(max_pixels)}
    return stream


def check_pixels(width: int, height: int, uri: str, max_pixels: int) -> None:
    """Raises MediaError `too_many_pixels`. To be called with header values, before decoding."""
    if width * height > max_pixels:
        raise MediaError(
            "too_many_pixels", f"{uri}: {width} x {height} pixels, limit {max_pixels} per picture"
        )


def decode(
    container: InputContainer, stream: VideoStream, uri: str, budget: Budget
) -> Generator[VideoFrame]:
    """All frames from the present position, in display order.

    What cannot be decoded before the first good frame is skipped (a recording that starts in the
    middle of a group of pictures). After it, damage raises MediaError `decode_error`.
    """
    packets = container.demux(stream)
    num_frames = 0
    first_error: MediaError | None = None
    while True:
        try:
            with budget.spend():
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.is_corrupt and num_frames:
                    raise MediaError("decode_error", _damage(uri, num_frames, "corrupt packet"))
                frames = packet.decode()
        except (av.FFmpegError, OSError, ValueError) as error:
            is_too_large = getattr(error, "errno", None) == errno.ERANGE  # over max_pixels
            error_class = "too_many_pixels" if is_too_large else "decode_error"
            failure = MediaError(error_class, _damage(uri, num_frames, reason(error)))
            if num_frames:
                raise failure from error
            first_error = first_error or failure
            continue
        for frame in frames:
            if isinstance(frame, VideoFrame) and not frame.is_corrupt:
                num_frames += 1
                yield frame
    if num_frames == 0:
        raise first_error or MediaError("no_frames", f"{uri}: the video stream holds no frame")


def stated_duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Duration of the video as the container states it, or None."""
    time_base = stream.time_base
    if stream.duration is not None and time_base is not None:
        return float(stream.duration * time_base)
    stated_s: float | None = None
    if (text := stream.metadata.get("DURATION")) is not None:  # Matroska, per stream
        stated_s = _parse_clock(text)
    elif container.duration is not None and len(container.streams) == 1:
        stated_s = container.duration / av.time_base
    if stated_s is not None and container.format.name == "matroska" and time_base is not None:
        stated_s -= float((stream.start_time or 0) * time_base)  # stated from time zero on
    return None if stated_s is None else max(0.0, stated_s)


def _parse_clock(text: str) -> float | None:
    try:
        hours, minutes, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def packet_times_s(container: InputContainer, stream: VideoStream) -> list[float]:
    """Presentation times of the first pictures, sorted, from packets alone. Ends at damage."""
    times_s: list[float] = []
    is_complete = False
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base is not None and not packet.is_discard:
                times_s.append(float(packet.pts * packet.time_base))
            if len(times_s) == _NUM_PROBED_PACKETS:
                break
        else:
            is_complete = True
    except (av.FFmpegError, OSError, ValueError):
        logger.debug("packets end at damage after %d", len(times_s))
    times_s.sort()
    # Packets come in decode order: near the point of stopping some earlier pictures are missing.
    return times_s if is_complete else times_s[:-_MAX_REORDERED]


def check_end(end_s: float, stated_s: float | None, uri: str) -> None:
    """Raises MediaError `ended_early` where a file was cut off without any decoding error."""
    if stated_s is None:
        return
    missing_s = stated_s - end_s
    if missing_s > max(_MIN_MISSING_S, _MIN_MISSING_SHARE * stated_s):
        raise MediaError(
            "ended_early", f"{uri}: ends after {end_s:.2f} s, its header says {stated_s:.2f} s"
        )


def reason(error: Exception) -> str:
    """What the library says, without its file name and number."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)


def _damage(uri: str, num_frames: int, text: str) -> str:
    return f"{uri}: after {num_frames} good frames: {text}"
