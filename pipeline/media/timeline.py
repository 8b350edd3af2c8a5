"""One forward run through a source: frames with their index and their time.

Times come from the stored presentation times, counted from the first decoded frame. A frame that
stores none follows the one before it at the nominal rate; one that does not lie after its
predecessor is put a microsecond after it, so that times always increase.
"""

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

from av.video.frame import VideoFrame

from pipeline.media.config import LoopFilterSkip, MediaLimits
from pipeline.media.container import (
    Budget,
    check_end,
    decode,
    open_container,
    reason,
    select_video_stream,
    stated_duration_s,
)
from pipeline.media.errors import MediaError
from pipeline.media.sniff import Format

SMALLEST_STEP_S = 1e-6
_SAME_TIME_S = SMALLEST_STEP_S / 2
_SEEKABLE = {"mov", "matroska"}  # stored times there stay the same after a seek
# How far before the wanted time, tried in turn: containers index decode times, so that a seek can
# land on a key frame shown just after the wanted one. A failed try costs a few frames.
_SEEK_BACK_S = (0.0, 0.25, 1.0, 4.0, 16.0)
_FALLBACK_FPS = Fraction(25)  # where neither times nor a rate are stored


class Timeline:
    """Iterates `(time_s, frame)`; `index` is the index of the frame that comes next."""

    def __init__(
        self,
        path: Path,
        uri: str,
        format: Format,
        *,
        limits: MediaLimits,
        budget: Budget,
        skip_loop_filter: LoopFilterSkip = "none",
        origin_pts: int | None = None,
    ) -> None:
        self.uri = uri
        self.index = 0
        self.time_s = 0.0  # of the frame given out last
        self.origin_pts = origin_pts
        self.is_over = False  # ended, or stopped by damage
        self._limits = limits
        self._budget = budget
        self._format = format
        self._pending: tuple[float, VideoFrame] | None = None
        self._previous_s: float | None = None
        self.container = open_container(
            path, uri, format, limits, max_pixels=limits.max_video_pixels
        )
        try:
            self.stream = select_video_stream(self.container, uri, limits.max_video_pixels)
            self._check_duration(stated_duration_s(self.container, self.stream))
        except BaseException:
            self.container.close()
            raise
        if skip_loop_filter != "none":
            self.stream.codec_context.options |= {"skip_loop_filter": skip_loop_filter}
        self.time_base = self.stream.time_base or Fraction(1, 90_000)
        rate = self.stream.average_rate or self.stream.guessed_rate or _FALLBACK_FPS
        self._nominal_s = float(1 / rate)
        self._frames = self._timed()

    def close(self) -> None:
        self._frames.close()
        self._pending = None
        self.container.close()

    def peek(self) -> VideoFrame:
        """The next frame, which stays the next one. Raises MediaError, also at the end."""
        if self._pending is None:
            self._pending = next(self._frames, None)
        if self._pending is None:
            raise MediaError("ended_early", f"{self.uri}: no frame {self.index}")
        return self._pending[1]

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        return self

    def __next__(self) -> tuple[float, VideoFrame]:
        item, self._pending = self._pending, None
        if item is None:
            self.is_over = True
            item = next(self._frames)
            self.is_over = False
        self.index += 1
        self.time_s = item[0]
        return item

    @property
    def can_seek(self) -> bool:
        return self._format.demuxer in _SEEKABLE and self.origin_pts is not None

    def seek(self, index: int, time_s: float) -> bool:
        """Make the frame of this time the next one. False: not found, and the run is lost."""
        return any(
            self._seek_from(time_s - back_s, index, time_s)
            for back_s in _SEEK_BACK_S
            if time_s - back_s > 0
        )

    def _seek_from(self, from_s: float, index: int, time_s: float) -> bool:
        assert self.origin_pts is not None
        offset = self.origin_pts + round(Fraction(from_s) / self.time_base)
        try:
            self.container.seek(offset, stream=self.stream)
        except (OSError, ValueError) as error:
            raise MediaError("decode_error", f"{self.uri}: seek: {reason(error)}") from error
        self._pending = None
        self._previous_s = None
        self.is_over = False
        self._frames = self._timed()
        try:
            return self._find(index, time_s)
        except MediaError as error:
            if error.error_class == "timeout":
                raise
            return False

    def _find(self, index: int, time_s: float) -> bool:
        # What comes before the first key frame may refer to pictures before the seek point.
        is_whole = False
        for item in self._frames:
            is_whole = is_whole or item[1].key_frame
            if item[0] > time_s + _SAME_TIME_S:
                return False
            if is_whole and abs(item[0] - time_s) < _SAME_TIME_S:
                self._pending = item
                self.index = index
                return True
        return False

    def _timed(self) -> Generator[tuple[float, VideoFrame]]:
        for frame in decode(self.container, self.stream, self.uri, self._budget):
            time_s = self._time_of(frame)
            self._check_duration(time_s)
            self._previous_s = time_s
            yield time_s, frame
        if self._previous_s is not None:
            stated_s = stated_duration_s(self.container, self.stream)
            check_end(self._previous_s + self._nominal_s, stated_s, self.uri)

    def _time_of(self, frame: VideoFrame) -> float:
        previous_s = self._previous_s
        if frame.pts is None:
            return 0.0 if previous_s is None else previous_s + self._nominal_s
        if self.origin_pts is None:
            expected_s = 0.0 if previous_s is None else previous_s + self._nominal_s
            self.origin_pts = frame.pts - round(Fraction(expected_s) / self.time_base)
        time_s = float((frame.pts - self.origin_pts) * self.time_base)
        if previous_s is not None and time_s <= previous_s:
            return previous_s + SMALLEST_STEP_S
        return time_s

    def _check_duration(self, duration_s: float | None) -> None:
        if duration_s is not None and duration_s > self._limits.max_duration_s:
            limit_s = self._limits.max_duration_s
            raise MediaError("too_long", f"{self.uri}: {duration_s:.0f} s, limit {limit_s:g} s")
