"""Frames of one media member by PyAV."""

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from modeling.data.decode import Pixels, cut_view
from modeling.data.errors import SampleError
from modeling.data.view import View

_SEEK_FROM_FRAME = 32  # shards have a keyframe every 32 frames


def decode_by_pyav(media: bytes, view: View, out_THWC: Pixels) -> None:
    """Decodes up to the last wanted frame, from the keyframe before the first one."""
    position_of = {int(index): position for position, index in enumerate(view.frames)}
    scaler, num_filled = VideoReformatter(), 0
    try:
        with av.open(io.BytesIO(media), "r") as container:
            for index, frame in _numbered_frames(container, view.start):
                if frame.is_corrupt:
                    raise SampleError(f"frame {index} is damaged")
                if index in position_of:
                    out_THWC[position_of[index]] = _scaled_rgb(scaler, frame, view)
                    num_filled += 1
                if num_filled == len(out_THWC):
                    return
    except (FFmpegError, IndexError, EOFError) as error:
        raise SampleError(f"cannot be decoded ({error})") from error
    raise SampleError(f"{num_filled} of {len(out_THWC)} frames are there")


def _numbered_frames(container: InputContainer, start: int) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with their indices, from the keyframe at or before `start` or earlier."""
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # the loader decodes many samples side by side instead
    if start >= _SEEK_FROM_FRAME and stream.average_rate and stream.time_base:
        tick = Fraction(1) / (stream.average_rate * stream.time_base)
        container.seek(round(start * tick), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None:
                raise SampleError("a frame has no time stamp")
            yield round(frame.pts / tick), frame
        return
    yield from enumerate(container.decode(stream))


def _scaled_rgb(scaler: VideoReformatter, frame: VideoFrame, view: View) -> Pixels:
    height, width = view.scaled_HW
    picture: Any = scaler.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC,
        threads=1,
    )
    plane = picture.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
    image_HWC = rows[:, : width * 3].reshape(height, width, 3)
    return cut_view(image_HWC, view)
