"""Text boxes followed over the sampled frames, and the band where subtitles stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

from pipeline.score.text_reader import TextBox
from schemas.scores import Box

_MIN_IOU = 0.5
# A line of a subtitle, in shares of the picture.
_LINE_HEIGHT = (0.022, 0.11)
_MAX_OFF_CENTER = 0.15
_BOTTOM_FROM = 0.65
_TOP_UNTIL = 0.2
_MAX_DRIFT = 0.015  # of the line's vertical center over time
_BAND_PADDING = 0.3  # of the line's height
_MERGE_GAP = 1.2  # of the line's height: two lines of one subtitle
_CHANGED_RATIO = 0.5  # texts more alike than this are the same line read twice


@dataclass(frozen=True, slots=True)
class BoxTrack:
    """Boxes of one place, by frame, and the words where they were read."""

    boxes: Mapping[int, TextBox]
    words: Mapping[int, str] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom around all its boxes."""
        sides = np.array([box.bounds for box in self.boxes.values()])
        low, high = sides.min(axis=0), sides.max(axis=0)
        return float(low[0]), float(low[1]), float(high[2]), float(high[3])

    @property
    def best_frame(self) -> int:
        return max(self.boxes, key=lambda frame: (self.boxes[frame].confidence, -frame))

    @property
    def best_box(self) -> TextBox:
        return self.boxes[self.best_frame]

    @property
    def longest(self) -> TextBox:
        return max(self.boxes.values(), key=lambda box: (_area(box), box.bounds))

    @property
    def text(self) -> str:
        return self.words[min(self.words)] if self.words else ""

    @property
    def changes(self) -> bool:
        """Whether the words change from one frame to a later one."""
        texts = [self.words[frame] for frame in sorted(self.words)]
        return any(_differ(a, b) for a, b in pairwise(texts))

    @property
    def is_subtitle_like(self) -> bool:
        """A centered level line of a subtitle's size, near the bottom or the top, at rest."""
        left, top, right, bottom = self.best_box.bounds
        height, width = bottom - top, right - left
        middles = [sum(box.bounds[1::2]) / 2 for box in self.boxes.values()]
        return (
            _LINE_HEIGHT[0] <= height <= _LINE_HEIGHT[1]
            and width > 1.5 * height
            and abs((left + right) / 2 - 0.5) < _MAX_OFF_CENTER
            and (bottom > _BOTTOM_FROM or top < _TOP_UNTIL)
            and float(np.std(middles)) < _MAX_DRIFT
        )

    def presence(self, num_frames: int) -> float:
        return len(self.boxes) / num_frames

    def with_words(self, words: Mapping[int, str]) -> "BoxTrack":
        return replace(self, words=dict(words))


def link_boxes(boxes_by_frame: Sequence[Sequence[TextBox]]) -> list[BoxTrack]:
    """Greedy linking: a box joins the track it overlaps most, or a centered line of its height.

    The words of a subtitle change their length, so centered lines link by row, not by overlap.
    """
    tracks: list[dict[int, TextBox]] = []
    for frame, boxes in enumerate(boxes_by_frame):
        for box in sorted(boxes, key=lambda b: (-b.confidence, b.bounds)):
            free = [track for track in tracks if frame not in track]
            scores = [_likeness(track[max(track)], box) for track in free]
            best = int(np.argmax(scores)) if scores else -1
            if best >= 0 and scores[best] >= _MIN_IOU:
                free[best][frame] = box
            else:
                tracks.append({frame: box})
    return [BoxTrack(track) for track in tracks]


def find_subtitle_band(
    tracks: Sequence[BoxTrack], num_frames: int, *, is_moving: bool
) -> Box | None:
    """The padded band of the lines that behave like subtitles; None without one.

    A line counts when its words change, when it comes or goes within the clip, or when it rests
    while the picture moves. A lone frame's line counts only in the lower part of the picture.
    """
    lines = [
        track
        for track in tracks
        if track.is_subtitle_like
        and (len(track.boxes) >= 2 or num_frames <= 3 or track.bounds[3] > _BOTTOM_FROM)
        and (track.changes or (len(track.boxes) < num_frames) or is_moving)
    ]
    if not lines:
        return None
    lines.sort(key=lambda track: (-len(track.boxes), track.bounds))
    left, top, right, bottom = lines[0].bounds
    height = bottom - top
    for track in sorted(lines[1:], key=lambda t: abs(t.bounds[1] - top)):
        other = track.bounds
        if max(other[1] - bottom, top - other[3]) <= (_MERGE_GAP - 1) * height + height:
            left, top = min(left, other[0]), min(top, other[1])
            right, bottom = max(right, other[2]), max(bottom, other[3])
    pad = _BAND_PADDING * height
    return Box(
        left=max(0.0, left - pad),
        top=max(0.0, top - pad),
        right=min(1.0, right + pad),
        bottom=min(1.0, bottom + pad),
    )


def _likeness(first: TextBox, second: TextBox) -> float:
    a, b = first.bounds, second.bounds
    rows = _overlap(a[1], a[3], b[1], b[3])
    iou = _intersection(a, b) / max(_area(first) + _area(second) - _intersection(a, b), 1e-9)
    is_centered = all(abs((box[0] + box[2]) / 2 - 0.5) < _MAX_OFF_CENTER for box in (a, b))
    return max(iou, rows) if is_centered else iou


def _overlap(low_a: float, high_a: float, low_b: float, high_b: float) -> float:
    shared = max(0.0, min(high_a, high_b) - max(low_a, low_b))
    return shared / max(max(high_a, high_b) - min(low_a, low_b), 1e-9)


def _intersection(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    return width * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _area(box: TextBox) -> float:
    left, top, right, bottom = box.bounds
    return (right - left) * (bottom - top)


def _differ(first: str, second: str) -> bool:
    return SequenceMatcher(None, first, second, autojunk=False).ratio() < _CHANGED_RATIO
