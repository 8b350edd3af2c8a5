"""The sample window of a clip: which frames become the training sample, at which constant rate.

It starts at the clear first frame and holds at most the longest listed frame count. The rate is
the native one up to 32 fps; higher rates are divided by the smallest whole number that brings
them there. Clips of variable rate are resampled to the nearest usual constant rate: at each
sample time, the frame that lies nearest.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from schemas.clip import ClipRow

LISTED_FRAME_COUNTS = (33, 65, 97, 129)
MAX_FRAMES = LISTED_FRAME_COUNTS[-1]
MAX_FPS = 32.0  # twice the lowest rate that a tier takes: a halved one is never below it
_USUAL_FPS = (12.0, 12.5, 15.0, 24_000 / 1001, 24.0, 25.0, 30_000 / 1001, 30.0)
_MAX_CHANGE = 1.1  # a rate further than this from every usual one is kept as measured


class Timed(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def time_s(self) -> float: ...


FrameT = TypeVar("FrameT", bound=Timed)


@dataclass(frozen=True, slots=True)
class SampleWindow:
    """Samples from (`start_frame`, `start_s`), `stride` source frames or 1/`fps` apart.

    `end_frame` bounds the source frames that have to be read (half-open). `stride` is None where
    the clip's rate varies: then samples are chosen by time.
    """

    start_frame: int
    start_s: float
    end_frame: int
    num_frames: int
    fps: float | None  # None for an image
    stride: int | None

    @property
    def start(self) -> tuple[int, float]:
        """As `VideoReader.frames` wants it."""
        return self.start_frame, self.start_s


def decimation(fps: float) -> int:
    """The smallest whole number that divides the rate to at most 32 fps."""
    return max(1, math.ceil(fps / MAX_FPS))


def effective_fps(clip: ClipRow) -> float | None:
    """The constant rate of the clip's samples; None for images and clips of unknown rate."""
    if clip.fps is None:
        return None
    fps = clip.fps / decimation(clip.fps)
    if not clip.is_vfr:
        return fps
    usual = min(_USUAL_FPS, key=lambda rate: abs(math.log(rate / fps)))
    return usual if max(usual / fps, fps / usual) <= _MAX_CHANGE else fps


def max_num_samples(clip: ClipRow) -> int:
    """How many samples fit between the clear frame and the end of the clip; 0 if it failed."""
    if not clip.ok:
        return 0
    fps = effective_fps(clip)
    if fps is None:
        return 1
    assert clip.fps is not None
    if clip.is_vfr:
        return math.floor((clip.end_s - clip.clear_s) * fps + 1e-6)
    return (clip.end_frame - 1 - clip.clear_frame) // decimation(clip.fps) + 1


def sample_window(clip: ClipRow, num_frames: int = MAX_FRAMES) -> SampleWindow:
    """At most `num_frames` samples, fewer where the clip is shorter. ValueError if it failed."""
    count = min(num_frames, max_num_samples(clip))
    if count < 1:
        raise ValueError(f"clip {clip.clip_id!r} holds no sample, {num_frames} wanted")
    fps = effective_fps(clip)
    stride = None
    end_frame = clip.end_frame
    if fps is None:
        stride, end_frame = 1, clip.clear_frame + 1
    elif not clip.is_vfr:
        assert clip.fps is not None
        stride = decimation(clip.fps)
        end_frame = clip.clear_frame + stride * (count - 1) + 1
    return SampleWindow(
        start_frame=clip.clear_frame,
        start_s=clip.clear_s,
        end_frame=end_frame,
        num_frames=count,
        fps=fps,
        stride=stride,
    )


def sample_times(clip: ClipRow, num_frames: int = MAX_FRAMES) -> list[float]:
    """Times of the samples in seconds from the first frame of the source."""
    window = sample_window(clip, num_frames)
    if window.fps is None:
        return [window.start_s]
    return [window.start_s + i / window.fps for i in range(window.num_frames)]


def select_samples(frames: Iterable[FrameT], window: SampleWindow) -> Iterator[FrameT]:
    """The window's samples from the source frames `start_frame` to `end_frame`, in order.

    `frames` may be any objects with `index` and `time_s`, decoded without stride. Of a variable
    rate one frame may serve two samples. Yields exactly `num_frames`, or fewer if `frames` end.
    """
    if window.stride is not None:
        count = 0
        for frame in frames:
            if (frame.index - window.start_frame) % window.stride == 0:
                yield frame
                count += 1
                if count == window.num_frames:
                    return
        return
    yield from _nearest(frames, window)


def _nearest(frames: Iterable[FrameT], window: SampleWindow) -> Iterator[FrameT]:
    assert window.fps is not None
    count = 0
    previous: FrameT | None = None
    for frame in frames:
        while previous is not None and count < window.num_frames:
            wanted_s = window.start_s + count / window.fps
            if wanted_s > (previous.time_s + frame.time_s) / 2:
                break
            yield previous
            count += 1
        if count == window.num_frames:
            return
        previous = frame
    if previous is not None:
        for _ in range(count, window.num_frames):
            yield previous
