"""Border error in pixels, ours beside a plain luma threshold.

Bars of known size are drawn over real clips, which are encoded again and measured like any clip;
the same clips without bars count the false alarms. The peer calls a row a bar while the mean of
its brightest luma over time stays at or below 24, as ffmpeg's cropdetect does by default.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.duplicate_clips import MEDIA_LIST
from pipeline.evaluate.figures import OURS, Figure, median_figure, share_figure
from pipeline.evaluate.motion import encoded_clip
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.video import open_video
from pipeline.score.borders import BordersStage
from pipeline.score.config import BordersConfig
from pipeline.score.sampler import Clip
from schemas.scores import BorderScore

_NUM_FRAMES = 48
_MIN_SIDE_PX = 200
_PEER_LIMIT = 24
# left, top, right, bottom in shares, with the color of the bars.
_BARS: tuple[tuple[tuple[float, float, float, float], tuple[int, int, int]], ...] = (
    ((0, 0.12, 0, 0.12), (0, 0, 0)),
    ((0.15, 0, 0.15, 0), (0, 0, 0)),
    ((0.1, 0.1, 0.1, 0.1), (8, 8, 8)),
    ((0, 0.2, 0, 0.05), (16, 16, 16)),
    ((0.125, 0, 0.125, 0), (255, 255, 255)),
    ((0, 0.1, 0, 0.1), (30, 60, 120)),
)
Sides = tuple[int, int, int, int]


PART = "borders"
PEER = f"rows of luma up to {_PEER_LIMIT}"
_MAX_ERROR_PX = 2


def evaluate_borders(media: Path, *, max_clips: int = 24) -> list[Figure]:
    """Clips that the media's own measurement calls free of borders, in the order of their names.

    The error is the largest over the four sides; a false alarm is a plain clip with any side over
    2 px.
    """
    errors: dict[str, list[float]] = {OURS: [], PEER: []}
    alarms: dict[str, list[bool]] = {OURS: [], PEER: []}
    with tempfile.TemporaryDirectory() as folder:
        for index, frames in enumerate(_plain_clips(media, max_clips)):
            bars, color = _BARS[index % len(_BARS)]
            true = _pixels(bars, frames.shape[1:3])
            barred = encoded_clip(Path(folder) / "a.mp4", list(_draw(frames, true, color)), 24.0)
            plain = encoded_clip(Path(folder) / "b.mp4", list(frames), 24.0)
            for method, measure in ((OURS, _measure), (PEER, _threshold)):
                errors[method].append(_error(measure(barred), true))
                alarms[method].append(max(measure(plain)) > _MAX_ERROR_PX)
    figures = []
    for method in (OURS, PEER):
        within = [error <= _MAX_ERROR_PX for error in errors[method]]
        figures += [
            median_figure(PART, "median error (px)", method, errors[method], "barred clips"),
            share_figure(PART, "within 2 px", method, within, "barred clips"),
            share_figure(PART, "false alarms", method, alarms[method], "plain clips"),
        ]
    return figures


def _plain_clips(media: Path, max_clips: int) -> Iterator[NDArray[np.uint8]]:
    """The first frames of each video, T x H x W x 3 with even sides."""
    count = 0
    with (media / MEDIA_LIST).open() as file:
        entries = [json.loads(line) for line in file]
    for entry in sorted(entries, key=lambda e: str(e["name"])):
        borders = (entry.get("measured") or {}).get("border_tblr") or [1]
        is_small = min(entry.get("width") or 0, entry.get("height") or 0) < _MIN_SIDE_PX
        has_box = any("box" in tag or "border" in tag for tag in entry["tags"])
        if entry["kind"] != "video" or any(borders) or is_small or has_box:
            continue
        try:
            with open_video((media / entry["name"]).as_uri(), MediaLimits()) as reader:
                height, width = (side - side % 2 for side in reader.display_size)
                frames = [
                    frame.image
                    for frame, _ in zip(
                        reader.frames(size_HW=(height, width)), range(_NUM_FRAMES), strict=False
                    )
                ]
        except MediaError:
            continue
        if len(frames) == _NUM_FRAMES and max(height, width) <= 1280:
            yield np.stack(frames)
            count += 1
        if count == max_clips:
            return


def _draw(
    frames: NDArray[np.uint8], sides: Sides, color: tuple[int, int, int]
) -> NDArray[np.uint8]:
    left, top, right, bottom = sides
    height, width = frames.shape[1:3]
    barred = np.empty_like(frames)
    barred[:] = color
    inside = (slice(None), slice(top, height - bottom), slice(left, width - right))
    barred[inside] = frames[inside]
    return barred


def _measure(clip: Clip) -> Sides:
    (score,) = BordersStage(BordersConfig()).process([clip])
    if not isinstance(score, BorderScore):
        raise TypeError(f"borders failed: {score.error}")
    return score.left_px, score.top_px, score.right_px, score.bottom_px


def _threshold(clip: Clip) -> Sides:
    brightest = clip.native_luma_THW.max(axis=0)
    rows, columns = brightest.mean(axis=1), brightest.mean(axis=0)
    return _run(columns), _run(rows), _run(columns[::-1]), _run(rows[::-1])


def _run(means: NDArray[np.float64]) -> int:
    bright = np.flatnonzero(means > _PEER_LIMIT)
    return int(bright[0]) if len(bright) else 0


def _pixels(shares: tuple[float, float, float, float], size_HW: tuple[int, ...]) -> Sides:
    height, width = size_HW
    left, top, right, bottom = shares
    return round(left * width), round(top * height), round(right * width), round(bottom * height)


def _error(found: Sides, true: Sides) -> int:
    return max(abs(a - b) for a, b in zip(found, true, strict=True))
