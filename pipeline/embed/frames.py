"""The frames that stand for a clip: at the centers of equal parts of its whole span.

Chosen by time, so that a copy at another frame rate gives the same moments. The clips of a source
are read in order from one open file: it is decoded once, forward.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.convert import Converter
from pipeline.media.errors import MediaError, to_failure
from pipeline.media.image import open_image
from pipeline.media.video import VideoReader, open_video
from schemas.clip import ClipRow
from schemas.model_card import ModelCard
from schemas.status import Failure

Images = NDArray[np.uint8]
_CLOCK_ERROR_S = 1e-6  # times are sums of rationals stored as floats


@dataclass(frozen=True, slots=True, eq=False)
class ClipFrames:
    """RGB at the network's size. `luma_sd`: spread of luma of the most textured frame."""

    clip_id: str
    frames_THWC: Images
    luma_sd: float


def read_clips(
    clips: Sequence[ClipRow], card: ModelCard, *, num_frames: int, limits: MediaLimits
) -> Iterator[ClipFrames | Failure]:
    """One result per clip, in order. Clips of one source must stand together, in their order."""
    for _, members in groupby(clips, key=lambda clip: clip.source_uri):
        yield from _read_source(list(members), card, num_frames, limits)


def sample_times(clip: ClipRow, num_frames: int) -> list[float]:
    """Centers of `num_frames` equal parts of the span, in seconds on the source's timeline."""
    duration_s = clip.end_s - clip.start_s
    return [clip.start_s + duration_s * (k + 0.5) / num_frames for k in range(num_frames)]


def _read_source(
    clips: Sequence[ClipRow], card: ModelCard, num_frames: int, limits: MediaLimits
) -> Iterator[ClipFrames | Failure]:
    num_done = 0
    try:
        if clips[0].media_kind == "image":
            image_HWC = open_image(clips[0].source_uri, limits)
            frame_HWC = _fitted(image_HWC, card)
            for clip in clips:
                yield _clip_frames(clip, [frame_HWC] * (card.num_frames or 1))
                num_done += 1
            return
        # The network sees a third of the size and less, where blocks do not show: a fifth faster.
        with open_video(clips[0].source_uri, limits, skip_loop_filter="noref") as reader:
            for clip in clips:
                try:
                    frames = _read_span(clip, reader, card, num_frames)
                    result: ClipFrames | Failure = _clip_frames(clip, frames)
                except MediaError as error:
                    result = to_failure(error)
                yield result
                num_done += 1
    except MediaError as error:
        yield from [to_failure(error)] * (len(clips) - num_done)


def _read_span(
    clip: ClipRow, reader: VideoReader, card: ModelCard, num_frames: int
) -> list[Images]:
    """The frame on show at each sample time. Raises MediaError before the last one."""
    size_HW = _covering_size(reader.display_size, card)
    converter = Converter(size_HW=size_HW, pix_fmt="rgb24", orientation=reader.orientation)
    wanted_s = sample_times(clip, num_frames)
    start = (clip.start_frame, clip.start_s)
    images: list[Images] = []
    shown = None
    for _, time_s, frame in reader.av_frames(start=start, end_frame=clip.end_frame):
        if shown is not None:
            num_shown = sum(w < time_s - _CLOCK_ERROR_S for w in wanted_s[len(images) :])
            if num_shown:
                images += [_middle(converter.convert(shown), card)] * num_shown
            if len(images) == num_frames:
                return images
        shown = frame
    if shown is None:
        raise MediaError("no_frames", f"{clip.source_uri}: no frame from {clip.start_s:.3f} s on")
    rest = num_frames - len(images)
    return images + [_middle(converter.convert(shown), card)] * rest


def _clip_frames(clip: ClipRow, frames: Sequence[Images]) -> ClipFrames:
    luma_sd = max(
        float(cv2.meanStdDev(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))[1][0, 0]) for frame in frames
    )
    return ClipFrames(clip.clip_id, np.stack(frames), round(luma_sd, 3))


def _fitted(image_HWC: Images, card: ModelCard) -> Images:
    height, width = _covering_size((image_HWC.shape[0], image_HWC.shape[1]), card)
    # Averaging over areas is right for shrinking and only blocky, not wrong, for enlarging.
    resized = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    return _middle(np.asarray(resized, np.uint8), card)


def _covering_size(picture_HW: tuple[int, int], card: ModelCard) -> tuple[int, int]:
    """What the picture is scaled to before its middle is taken."""
    if card.resize == "stretch":
        return card.height, card.width
    height, width = picture_HW
    scale = max(card.height / height, card.width / width)
    return max(card.height, round(height * scale)), max(card.width, round(width * scale))


def _middle(image_HWC: Images, card: ModelCard) -> Images:
    top = (image_HWC.shape[0] - card.height) // 2
    left = (image_HWC.shape[1] - card.width) // 2
    return image_HWC[top : top + card.height, left : left + card.width]
