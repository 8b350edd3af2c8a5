"""Labelled cuts and how answers are matched to them.

A media folder holds `gt/shot_cuts.json` (name -> cuts: first frames of new shots, null where not
labelled) and `gt/shot_gradual.json` (name -> [first, last] frames of gradual transitions). What
lies inside such an interval counts neither for nor against anyone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluate.figures import EvaluationError

CUTS_FILE = "gt/shot_cuts.json"
GRADUAL_FILE = "gt/shot_gradual.json"
TOLERANCE_FRAMES = 2


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    name: str
    path: Path
    cuts: tuple[int, ...]
    gradual: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Matches of one method; they add up over files."""

    num_found: int = 0
    num_wrong: int = 0
    num_missed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.num_found + other.num_found,
            self.num_wrong + other.num_wrong,
            self.num_missed + other.num_missed,
        )

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.num_found - other.num_found,
            self.num_wrong - other.num_wrong,
            self.num_missed - other.num_missed,
        )

    @property
    def f1(self) -> float:
        return 2 * self.num_found / max(1, 2 * self.num_found + self.num_wrong + self.num_missed)


def labelled_videos(media: Path) -> list[LabelledVideo]:
    """Videos whose cuts are labelled, by name. Raises EvaluationError where one is not there."""
    cuts: Mapping[str, Any] = json.loads((media / CUTS_FILE).read_text())
    gradual: Mapping[str, Any] = json.loads((media / GRADUAL_FILE).read_text())
    videos = [
        LabelledVideo(
            name=name,
            path=media / name,
            cuts=tuple(label["cuts"]),
            gradual=tuple((first, last) for first, last in gradual.get(name, ())),
        )
        for name, label in sorted(cuts.items())
        if label["cuts"] is not None
    ]
    for video in videos:
        if not video.path.is_file():
            raise EvaluationError(f"{video.path}: labelled in {CUTS_FILE}, but not there")
    return videos


def match(frames: Iterable[int], video: LabelledVideo) -> Counts:
    """Nearest pairs first, each frame and each cut used once, at most two frames apart."""
    found = [f for f in sorted(set(frames)) if not _is_gradual(f, video)]
    wanted = [c for c in video.cuts if not _is_gradual(c, video)]
    pairs = sorted(
        (abs(frame - cut), frame, cut)
        for frame in found
        for cut in wanted
        if abs(frame - cut) <= TOLERANCE_FRAMES
    )
    used_frames: set[int] = set()
    used_cuts: set[int] = set()
    for _, frame, cut in pairs:
        if frame not in used_frames and cut not in used_cuts:
            used_frames.add(frame)
            used_cuts.add(cut)
    num_found = len(used_cuts)
    return Counts(num_found, len(found) - num_found, len(wanted) - num_found)


def _is_gradual(frame: int, video: LabelledVideo) -> bool:
    return any(first <= frame <= last for first, last in video.gradual)
