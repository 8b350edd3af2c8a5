"""Clips of the labelled media for the duplicate evaluation: at most three moments per source."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.shot_labels import CUTS_FILE
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.video import open_video

MEDIA_LIST = "media.jsonl"
GROUPS_FILE = "gt/duplicate_groups.json"
Images = NDArray[np.uint8]
_MIN_SIDE = 120
_MIN_DURATION_S = 1.0
_MAX_DURATION_S = 4.0
_MIN_FPS = 6.0
_CLIPS_PER_SOURCE = 3
_LONG_SIDE = 384  # frames are kept at this size; perturbations work on it


@dataclass(frozen=True, slots=True)
class EvaluationClip:
    """A span of one shot; `name` is the file's path inside the media folder."""

    name: str
    start_frame: int
    end_frame: int
    fps: float

    def sample_times(self, span: tuple[float, float], num_frames: int) -> list[float]:
        """Centers of equal parts of that share of the clip, in seconds."""
        duration_s = (self.end_frame - self.start_frame) / self.fps
        begin_s = self.start_frame / self.fps + span[0] * duration_s
        part_s = (span[1] - span[0]) * duration_s / num_frames
        return [begin_s + (k + 0.5) * part_s for k in range(num_frames)]


def list_clips(media: Path) -> list[EvaluationClip]:
    """From every readable video of usual size and rate: up to three spans without a known cut."""
    cuts: dict[str, Any] = json.loads((media / CUTS_FILE).read_text())
    clips: list[EvaluationClip] = []
    for line in (media / MEDIA_LIST).read_text().splitlines():
        row = json.loads(line)
        if row["kind"] != "video" or row["error"] or not row["fps"] or not row["frames"]:
            continue
        if row["fps"] < _MIN_FPS or min(row["width"], row["height"]) < _MIN_SIDE:
            continue
        label = cuts.get(row["name"])
        bounds = [0, *((label and label["cuts"]) or []), row["frames"]]
        longest = round(_MAX_DURATION_S * row["fps"])
        spans = [
            (start, min(start + longest, stop))
            for first, stop in pairwise(bounds)
            for start in range(first, stop, longest)
        ]
        spans = [s for s in spans if s[1] - s[0] >= _MIN_DURATION_S * row["fps"]]
        step = max(1, len(spans) // _CLIPS_PER_SOURCE)
        for start, stop in spans[::step][:_CLIPS_PER_SOURCE]:
            clips.append(EvaluationClip(row["name"], start, stop, row["fps"]))
    return clips


def read_times(
    media: Path, clip: EvaluationClip, times_s: Sequence[float]
) -> Iterator[tuple[float, Images]]:
    """(time, frame on show) for each distinct time, in order; fewer where the source is damaged."""
    left = sorted(set(times_s))
    uri = (media / clip.name).absolute().as_uri()
    start = (clip.start_frame, clip.start_frame / clip.fps)
    try:
        with open_video(uri, MediaLimits()) as reader:
            height, width = reader.display_size
            scale = min(1.0, _LONG_SIDE / max(height, width))
            size_HW = round(height * scale), round(width * scale)
            shown: Images | None = None
            for frame in reader.frames(size_HW=size_HW, start=start):
                while shown is not None and left and frame.time_s > left[0] + 1e-6:
                    yield left.pop(0), shown
                if not left:
                    return
                shown = frame.image
            while shown is not None and left:
                yield left.pop(0), shown
    except MediaError:
        return
