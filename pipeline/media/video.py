"""Reads videos: probe, frame-exact access by index and time, upright frames of square pixels.

Frames are counted from 0 in display order over the whole source; times are seconds from the
first decoded frame. A frame is found again by its time after a seek to an earlier key frame, and
every doubt (no time stored, key frame too late, damage at the seek point) ends in a plain decode
from the start, so that index and time always mean what a full sequential decode says.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.media.config import LoopFilterSkip, MediaLimits
from pipeline.media.container import (
    Budget,
    check_pixels,
    open_container,
    packet_times_s,
    select_video_stream,
    stated_duration_s,
)
from pipeline.media.convert import Converter, PixelFormat, orientation_of
from pipeline.media.errors import MediaError
from pipeline.media.fetch import local_path, read_head
from pipeline.media.sniff import Format, sniff
from pipeline.media.timeline import Timeline
from pipeline.media.timing import measure_rate
from schemas.source import Probe

_MIN_SEEK_AHEAD_S = 2.0  # nearer frames are reached faster by decoding on
_MAX_SANE_FPS = 1000
_SANE_SAR = (0.1, 10.0)  # anything else is a broken header


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `image` is uint8, upright, H x W x 3 or (gray) H x W."""

    index: int
    time_s: float
    image: NDArray[np.uint8]


def display_size(probe: Probe) -> tuple[int, int]:
    """(height, width), upright: the sample aspect ratio stretches the stored width."""
    is_turned = probe.rotation_deg in (90, 270)
    height, width = (probe.width, probe.height) if is_turned else (probe.height, probe.width)
    width = max(1, round(width * probe.sample_aspect_ratio))
    return (width, height) if is_turned else (height, width)


@contextmanager
def open_video(
    uri: str, limits: MediaLimits, *, skip_loop_filter: LoopFilterSkip = "none"
) -> Iterator["VideoReader"]:
    """A reader of the source, with its first frame already decoded. Raises MediaError.

    Without the loop filter decoding is faster and slightly blocky: for pictures that are looked at
    much smaller only.
    """
    with local_path(uri, limits) as path:
        format = sniff(read_head(path, uri), uri)
        if format.kind != "video":
            raise MediaError("wrong_kind", f"{uri}: an image, opened as a video")
        reader = VideoReader(path, uri, format, limits, skip_loop_filter=skip_loop_filter)
        try:
            yield reader
        finally:
            reader.close()


class VideoReader:
    """One open source. Only one iteration at a time: a new one takes over from the one before.

    Policy for damage: iterations yield what lies before it and then raise MediaError
    `decode_error` (or `ended_early`, where a file that was cut off just stops), so that clips
    that end before the damage can be kept and the reason recorded.
    """

    def __init__(
        self,
        path: Path,
        uri: str,
        format: Format,
        limits: MediaLimits,
        *,
        skip_loop_filter: LoopFilterSkip = "none",
    ) -> None:
        self.uri = uri
        self._path = path
        self._format = format
        self._limits = limits
        self._skip_loop_filter = skip_loop_filter
        self._budget = Budget(uri, limits.max_decode_s)
        self._origin_pts: int | None = None
        self._timeline = self._open_timeline()
        try:
            frame = self._timeline.peek()
            check_pixels(frame.width, frame.height, uri, limits.max_video_pixels)
        except BaseException:
            self.close()
            raise
        self._origin_pts = self._timeline.origin_pts
        self.orientation = orientation_of(frame)
        self._stored_HW = (frame.height, frame.width)
        self._pix_fmt = frame.format.name

    def close(self) -> None:
        self._timeline.close()

    @cached_property
    def probe(self) -> Probe:
        """Facts of the container and of the first frame; reads ahead once for the frame rate."""
        stream = self._timeline.stream
        container = self._timeline.container
        measured = measure_rate(self._packet_times_s())
        fps = float(stream.average_rate or 0)
        if not 0 < fps <= _MAX_SANE_FPS:
            fps = measured.fps if measured else 0.0
        height, width = self.orientation.turn_size(self._stored_HW)
        return Probe(
            media_kind="video",
            container=container.format.name,
            codec=stream.codec_context.name,
            width=width,
            height=height,
            pix_fmt=self._pix_fmt,
            fps=fps or None,
            is_vfr=measured is not None and measured.is_vfr,
            rotation_deg=self.orientation.rotation_deg,
            sample_aspect_ratio=self._sample_aspect_ratio,
            duration_s=stated_duration_s(container, stream),
            num_frames=stream.frames or None,
            has_audio=len(container.streams.audio) > 0,
        )

    @cached_property
    def display_size(self) -> tuple[int, int]:
        """Height and width as shown: upright, square pixels."""
        height, width = self._stored_HW
        width = max(1, round(width * self._sample_aspect_ratio))
        check_pixels(width, height, self.uri, self._limits.max_video_pixels)
        return self.orientation.turn_size((height, width))

    def frames(
        self,
        *,
        size_HW: tuple[int, int] | None = None,
        pix_fmt: PixelFormat = "rgb24",
        start: tuple[int, float] | None = None,
        end_frame: int | None = None,
        stride: int = 1,
    ) -> Iterator[Frame]:
        """Every `stride`-th frame from `start` (index and time of the first wanted one).

        Upright, scaled to `size_HW` (default: as displayed), full range. Raises MediaError after
        the last good frame where the source is damaged or ends before `end_frame`.
        """
        converter = Converter(
            size_HW=size_HW or self.display_size, pix_fmt=pix_fmt, orientation=self.orientation
        )
        for index, time_s, frame in self.av_frames(start=start, end_frame=end_frame, stride=stride):
            yield Frame(index, time_s, converter.convert(frame))

    def av_frames(
        self,
        *,
        start: tuple[int, float] | None = None,
        end_frame: int | None = None,
        stride: int = 1,
    ) -> Iterator[tuple[int, float, VideoFrame]]:
        """As `frames`, but as decoded: stored orientation, size and pixel format."""
        first_frame, first_s = start or (0, 0.0)
        timeline = self._timeline_at(first_frame, first_s)
        while end_frame is None or timeline.index < end_frame:
            index = timeline.index
            item = next(timeline, None)
            if item is None:
                break
            if index >= first_frame and (index - first_frame) % stride == 0:
                yield index, *item
        if end_frame is not None and timeline.index < end_frame:
            raise MediaError(
                "ended_early", f"{self.uri}: {timeline.index} frames, wanted {end_frame}"
            )

    def _timeline_at(self, index: int, time_s: float) -> Timeline:
        """A run whose next frame is `index` or one before it."""
        timeline = self._timeline
        is_near = time_s - timeline.time_s <= _MIN_SEEK_AHEAD_S or not timeline.can_seek
        if timeline.index <= index and is_near and not timeline.is_over:
            return timeline
        if index > 0 and timeline.can_seek and timeline.seek(index, time_s):
            return timeline
        timeline.close()
        self._timeline = self._open_timeline()
        return self._timeline

    def _packet_times_s(self) -> list[float]:
        max_pixels = self._limits.max_video_pixels
        with open_container(
            self._path, self.uri, self._format, self._limits, max_pixels=max_pixels
        ) as container:
            stream = select_video_stream(container, self.uri, max_pixels)
            return packet_times_s(container, stream)

    def _open_timeline(self) -> Timeline:
        return Timeline(
            self._path,
            self.uri,
            self._format,
            limits=self._limits,
            budget=self._budget,
            skip_loop_filter=self._skip_loop_filter,
            origin_pts=self._origin_pts,
        )

    @property
    def _sample_aspect_ratio(self) -> float:
        ratio = float(self._timeline.stream.sample_aspect_ratio or 1)
        return ratio if _SANE_SAR[0] <= ratio <= _SANE_SAR[1] else 1.0
