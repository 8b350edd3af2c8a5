"""Frames for a captioner that looks: evenly spaced over the window, cut to the clean crop."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.image import open_image
from pipeline.media.video import open_video
from pipeline.media.window import sample_window, select_samples
from pipeline.tier.records import ClipRecord
from schemas.scores import FULL_PICTURE, Box


def caption_frames(record: ClipRecord, num_frames: int, limits: MediaLimits) -> NDArray[np.uint8]:
    """T x H x W x 3, RGB; fewer than `num_frames` where the window is shorter. MediaError."""
    crop = record.scores.crop
    box = FULL_PICTURE if crop is None else crop.box
    if record.clip.media_kind == "image":
        return _cut(open_image(record.clip.source_uri, limits), box)[None]
    window = sample_window(record.clip)
    wanted = set(_spread(window.num_frames, num_frames))
    with open_video(record.clip.source_uri, limits) as video:
        frames = video.frames(start=window.start, end_frame=window.end_frame)
        samples = enumerate(select_samples(frames, window))
        chosen = [_cut(frame.image, box) for place, frame in samples if place in wanted]
    return np.stack(chosen)


def _spread(num_available: int, num_wanted: int) -> Sequence[int]:
    """The middles of equal stretches."""
    count = min(num_available, num_wanted)
    return [int((i + 0.5) * num_available / count) for i in range(count)]


def _cut(image_HWC: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    height, width = image_HWC.shape[:2]
    rows = slice(round(box.top * height), round(box.bottom * height))
    columns = slice(round(box.left * width), round(box.right * width))
    return image_HWC[rows, columns]
