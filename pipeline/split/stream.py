"""A decoded source as PySceneDetect wants to see it: small pictures, counted from zero.

Every picture is taken from the decoder once. What needs more than the small copy (time, sharpness
at full detail) is written down on the way.
"""

from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from scenedetect import FrameTimecode, VideoStream

from pipeline.media.errors import MediaError
from pipeline.media.video import VideoReader
from pipeline.split.sharpness import SharpnessMeter

# PySceneDetect counts frames here; real times, which may be irregular, are kept beside it.
_COUNTING_RATE = Fraction(25)


class SmallPictureStream(VideoStream):  # type: ignore[misc]
    """Frames of `reader` with a short side of `short_side_px`, as BGR.

    Ends at the last good frame; `error` then says what stopped it, None at the real end.
    """

    BACKEND_NAME = "reelsieve"

    def __init__(self, reader: VideoReader, *, short_side_px: int) -> None:
        self.time_s = array("d")
        self.sharpness = array("f")
        self.error: MediaError | None = None
        self._uri = reader.uri
        self._size_HW = _reduced_size(reader.display_size, short_side_px)
        self._orientation = reader.orientation
        self._stored_size_HW = reader.orientation.turn_size(self._size_HW)
        self._scaler = VideoReformatter()
        self._frames: Iterator[tuple[int, float, VideoFrame]] = reader.av_frames()
        self._meter = SharpnessMeter()

    def read(self, decode: bool = True) -> NDArray[np.uint8] | bool:
        item = self._next()
        if item is None:
            return False
        _, time_s, frame = item
        self.time_s.append(time_s)
        self.sharpness.append(self._meter.measure(frame))
        height, width = self._stored_size_HW
        small = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="bgr24",
            interpolation=Interpolation.FAST_BILINEAR,
            threads=1,
        )
        return self._orientation.upright(small.to_ndarray())

    def _next(self) -> tuple[int, float, VideoFrame] | None:
        try:
            return next(self._frames, None)
        except MediaError as error:
            self.error = error
            self._frames = iter(())
            return None

    @property
    def path(self) -> str:
        return self._uri

    @property
    def name(self) -> str:
        return self._uri

    @property
    def is_seekable(self) -> bool:
        return False

    @property
    def frame_rate(self) -> Fraction:
        return _COUNTING_RATE

    @property
    def duration(self) -> None:
        return None

    @property
    def frame_size(self) -> tuple[int, int]:
        height, width = self._size_HW
        return width, height

    @property
    def aspect_ratio(self) -> float:
        return 1.0

    @property
    def position(self) -> FrameTimecode:
        """Of the frame given out last: its index."""
        return FrameTimecode(max(0, len(self.time_s) - 1), _COUNTING_RATE)

    @property
    def position_ms(self) -> float:
        return self.time_s[-1] * 1000 if self.time_s else 0.0

    @property
    def frame_number(self) -> int:
        return len(self.time_s)

    def reset(self) -> None:
        raise NotImplementedError("a source is decoded once")

    def seek(self, target: Any) -> None:
        raise NotImplementedError("a source is decoded once")


def _reduced_size(size_HW: tuple[int, int], short_side_px: int) -> tuple[int, int]:
    """Never enlarged; an extreme aspect keeps at least 8 pixels where the picture has them."""
    height, width = size_HW
    scale = min(1.0, short_side_px / min(height, width), 4 * short_side_px / max(height, width))
    return max(min(8, height), round(height * scale)), max(min(8, width), round(width * scale))
