"""Text in the picture: its area, its tracks over the sampled frames, the subtitle band.

A few small frames are scanned first. Only where they show text do more and larger frames follow,
and only then is anything read: a track whose words cannot be read was not text.
"""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.score.config import TextConfig
from pipeline.score.sampler import Clip, evenly
from pipeline.score.text_reader import TextBox, TextReader, open_reader
from pipeline.score.text_tracks import BoxTrack, find_subtitle_band, link_boxes
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import Box, TextScore, TextTrack
from schemas.status import Failure

_MAX_BOX_AREA = 0.5  # a box over most of the picture is a false alarm
_MIN_LINE_ASPECT = 1.25  # long by short side; squarer boxes are single characters or spots
_AREA_GRID_PX = 512  # long side of the mask on which the union of boxes is counted
_MAX_READ_TRACKS = 12
_MIN_READ_CONFIDENCE = 0.5
_PERSISTENT_PRESENCE = 0.5


class TextStage:
    name: ClassVar[str] = "text"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = TextScore

    def __init__(self, config: TextConfig, reader: TextReader | None = None) -> None:
        self._config = config
        self._reader = reader

    def setup(self) -> None:
        cv2.setNumThreads(1)
        self.reader()

    def reader(self) -> TextReader:
        if self._reader is None:
            self._reader = open_reader(self._config.backend)
        return self._reader

    def process(self, clips: Sequence[Clip]) -> list[TextScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> TextScore:
        frames, boxes = self._look(clip)
        tracks = self._legible(link_boxes(boxes), frames)
        kept = {id(box) for track in tracks for box in track.boxes.values()}
        boxes = [[box for box in row if id(box) in kept] for row in boxes]
        band = find_subtitle_band(tracks, len(frames), is_moving=clip.is_moving)
        areas = [union_area(row) for row in boxes]
        persistent = [t for t in tracks if t.presence(len(frames)) >= _PERSISTENT_PRESENCE]
        return TextScore(
            model_id=self.reader().model_id,
            mean_area=float(np.mean(areas)),
            max_area=float(np.max(areas)),
            persistent_area=union_area([track.longest for track in persistent]),
            subtitle_band=band,
            tracks=tuple(_row(track, len(frames)) for track in tracks),
            num_frames=len(frames),
        )

    def areas(self, frames_THWC: NDArray[np.uint8]) -> list[float]:
        """Share of text in each of some frames, with the eyes of the second look."""
        return [
            union_area(self.find(frame, self._config.follow_long_side)) for frame in frames_THWC
        ]

    def _look(self, clip: Clip) -> tuple[list[NDArray[np.uint8]], list[list[TextBox]]]:
        frames = clip.key_frames_THWC
        scan = [frames[i] for i in evenly(len(frames), self._config.num_scan_frames)]
        # No further than to the first text: the second look starts anew.
        if not any(self.find(frame, self._config.scan_long_side) for frame in scan):
            return scan, [[] for _ in scan]
        follow = [frames[i] for i in evenly(len(frames), self._config.num_follow_frames)]
        return follow, [self.find(frame, self._config.follow_long_side) for frame in follow]

    def find(self, frame_HWC: NDArray[np.uint8], long_side: int) -> list[TextBox]:
        """Boxes of lines in one frame, looked at with this long side or its own smaller one."""
        height, width = frame_HWC.shape[:2]
        scale = min(1.0, long_side / max(height, width))
        size = (max(32, round(width * scale)), max(32, round(height * scale)))
        small = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
        found = self.reader().find(np.asarray(small, np.uint8))
        return [
            box
            for box in found
            if box.confidence >= self._config.min_confidence and _is_line(box, size)
        ]

    def _legible(self, tracks: list[BoxTrack], frames: list[NDArray[np.uint8]]) -> list[BoxTrack]:
        """The tracks with their words; the largest are read, tiny ones beyond them are kept."""
        tracks = sorted(tracks, key=lambda t: (-union_area([t.longest]), t.bounds))
        read = [self._read(track, frames) for track in tracks[:_MAX_READ_TRACKS]]
        return [track for track in read if track is not None] + tracks[_MAX_READ_TRACKS:]

    def _read(self, track: BoxTrack, frames: list[NDArray[np.uint8]]) -> BoxTrack | None:
        """Candidates of a subtitle are read in every frame, others once."""
        wanted = track.boxes if track.is_subtitle_like else {track.best_frame: track.best_box}
        words = {}
        for frame, box in wanted.items():
            text, confidence = self.reader().read(_cut(frames[frame], box))
            if confidence >= _MIN_READ_CONFIDENCE and len(text) > 1:
                words[frame] = text
        return track.with_words(words) if words else None


def union_area(boxes: Sequence[TextBox]) -> float:
    """Share of the picture under at least one of the boxes."""
    if not boxes:
        return 0.0
    mask = np.zeros((_AREA_GRID_PX, _AREA_GRID_PX), np.uint8)
    for box in boxes:
        # Sixteenths of a pixel (shift 4), so that thin lines are not rounded up.
        corners = np.round(box.corners_42 * _AREA_GRID_PX * 16 - 8).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 1, shift=4)
    return float(mask.mean())


def _is_line(box: TextBox, size_WH: tuple[int, int]) -> bool:
    corners = box.corners_42 * np.array(size_WH, np.float64)
    sides = [float(np.linalg.norm(corners[i + 1] - corners[i])) for i in range(2)]
    left, top, right, bottom = box.bounds
    is_small = (right - left) * (bottom - top) <= _MAX_BOX_AREA
    return is_small and max(sides) >= _MIN_LINE_ASPECT * max(1.0, min(sides))


def _cut(frame_HWC: NDArray[np.uint8], box: TextBox) -> NDArray[np.uint8]:
    """The line, turned level; a tall one is laid on its side."""
    height, width = frame_HWC.shape[:2]
    corners = (box.corners_42 * np.array([width, height])).astype(np.float32)
    wide = max(2, round(float(np.linalg.norm(corners[1] - corners[0]))))
    tall = max(2, round(float(np.linalg.norm(corners[2] - corners[1]))))
    target = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]], np.float32)
    turn = cv2.getPerspectiveTransform(corners, target)
    line = cv2.warpPerspective(frame_HWC, turn, (wide, tall), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.rot90(line) if tall > 1.5 * wide else line, np.uint8)


def _row(track: BoxTrack, num_frames: int) -> TextTrack:
    left, top, right, bottom = track.bounds
    return TextTrack(
        box=Box(left=left, top=top, right=right, bottom=bottom),
        presence=track.presence(num_frames),
        changes=track.changes,
        text=track.text,
    )
