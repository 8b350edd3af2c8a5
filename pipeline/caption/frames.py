"""Pictures for a captioner that looks: evenly spaced over each window, cut to the clean crop."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.caption.backend import WindowRequest, window_request
from pipeline.caption.config import FrameBudget
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.image import open_image
from pipeline.media.video import open_video
from pipeline.media.window import sample_window, select_samples
from pipeline.tier.records import ClipRecord
from schemas.scores import FULL_PICTURE, Box

Image = NDArray[np.uint8]  # H x W x 3, RGB


def window_requests(
    record: ClipRecord, budget: FrameBudget, limits: MediaLimits
) -> list[WindowRequest]:
    """The windows of a clip's sample, in the order of time. Decodes it once. Raises MediaError."""
    clip_id = record.clip.clip_id
    crop = record.scores.crop
    box = FULL_PICTURE if crop is None else crop.box
    if record.clip.media_kind == "image":
        image = _fit(_cut(open_image(record.clip.source_uri, limits), box), budget.max_side)
        return [window_request(clip_id, 0, (0.0,), image[None])]
    window = sample_window(record.clip)
    assert window.fps is not None
    plan = list(plan_windows(window.num_frames, window.fps, budget))
    wanted = {place for places in plan for place in places}
    with open_video(record.clip.source_uri, limits) as video:
        frames = video.frames(start=window.start, end_frame=window.end_frame)
        images = {
            place: _fit(_cut(frame.image, box), budget.max_side)
            for place, frame in enumerate(select_samples(frames, window))
            if place in wanted
        }
    if not images:
        raise MediaError("ended_early", f"no frame of {window.num_frames} could be decoded")
    requests: list[WindowRequest] = []
    for places in plan:
        found = [place for place in places if place in images]  # a broken end gives fewer
        if found:
            times = tuple(round(place / window.fps, 3) for place in found)
            pictures = np.stack([images[place] for place in found])
            requests.append(window_request(clip_id, len(requests), times, pictures))
    return requests


def plan_windows(num_frames: int, fps: float, budget: FrameBudget) -> Iterator[Sequence[int]]:
    """Frames of each window: equal stretches of at most `window_s`, the middles of equal parts."""
    count = max(1, int(np.ceil(num_frames / fps / budget.window_s - 1e-9)))
    edges = [round(number * num_frames / count) for number in range(count + 1)]
    for first, last in pairwise(edges):
        yield [first + place for place in _spread(last - first, budget.num_frames)]


def _spread(num_available: int, num_wanted: int) -> Sequence[int]:
    """The middles of equal stretches."""
    count = min(num_available, num_wanted)
    return [int((i + 0.5) * num_available / count) for i in range(count)]


def _cut(image_HWC: Image, box: Box) -> Image:
    height, width = image_HWC.shape[:2]
    rows = slice(round(box.top * height), round(box.bottom * height))
    columns = slice(round(box.left * width), round(box.right * width))
    return image_HWC[rows, columns]


def _fit(image_HWC: Image, max_side: int) -> Image:
    """A copy of its own whose longer side is at most `max_side`; never enlarged."""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale == 1.0:
        return image_HWC.copy()
    size_WH = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(image_HWC, size_WH, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)
