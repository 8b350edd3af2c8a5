"""Shot boundaries against labels: F1 within two frames, ours beside plain peers in one run.

A media folder holds `gt/shot_cuts.json` (name -> cuts: first frames of new shots, null where not
labelled) and `gt/shot_gradual.json` (name -> [first, last] frames of gradual transitions). What
lies inside such an interval counts neither for nor against anyone. All methods get their pictures
from the same decoder, so frame numbers mean the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    FrameTimecode,
    SceneDetector,
    SceneManager,
)

from pipeline.media.errors import MediaError
from pipeline.media.video import open_video
from pipeline.split.boundaries import find_boundaries
from pipeline.split.config import EvidenceConfig, SplitConfig
from pipeline.split.evidence import Evidence, gather_evidence
from pipeline.split.stream import SmallPictureStream
from pipeline.split.transnet import runs_above
from pipeline.split.worker import load_transnet

OURS = "ours"
OURS_WITHOUT = "ours_without_transnet"
TRANSNET = "transnet_alone"
TOLERANCE_FRAMES = 2
_PEER_SHORT_SIDE_PX = 144  # PySceneDetect reduces a 16:9 picture to 256 x 144 by itself
_TRANSNET_THRESHOLD = 0.5
_NUM_BOOTSTRAPS = 1000
_CONFIDENCE = 0.95
# What leaving files out chooses among, for each of the two thresholds that decide most.
_STRENGTHS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
_PROBABILITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


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

    @property
    def precision(self) -> float:
        return self.num_found / max(1, self.num_found + self.num_wrong)

    @property
    def recall(self) -> float:
        return self.num_found / max(1, self.num_found + self.num_missed)

    @property
    def f1(self) -> float:
        return 2 * self.num_found / max(1, 2 * self.num_found + self.num_wrong + self.num_missed)


@dataclass(frozen=True, slots=True)
class ShotFigure:
    """One method over all files. The interval is a bootstrap over files, at 95 %.

    `left_out_f1`: the decisive threshold chosen anew on all other files for each file, where the
    method has one that was chosen on labels at all; None for the others.
    """

    method: str
    num_files: int
    num_cuts: int
    num_found: int
    num_wrong: int
    num_missed: int
    precision: float
    recall: float
    f1: float
    f1_low: float
    f1_high: float
    left_out_f1: float | None


def evaluate_shots(
    media: Path, config: SplitConfig | None = None, *, with_transnet_alone: bool = True
) -> list[ShotFigure]:
    """One figure per method, on every labelled video of `media`.

    TransNetV2 alone looks at every frame, which takes about a core second per 50 frames. Raises
    WeightsError where its weights are missing.
    """
    config = config or SplitConfig()
    videos = labelled_videos(media)
    gathered = _gather_all(videos, config)
    unseen = [_without_transnet(evidence) for evidence in gathered]
    counts: dict[str, list[Counts]] = {
        OURS: _ours(videos, gathered, config.evidence),
        OURS_WITHOUT: _ours(videos, unseen, config.evidence),
    }
    left_out = {
        OURS: _left_out(
            videos, gathered, [_with(config, min_probability=x) for x in _PROBABILITIES]
        ),
        OURS_WITHOUT: _left_out(
            videos, unseen, [_with(config, min_strength=x) for x in _STRENGTHS]
        ),
    }
    peers = [_peer_cuts(video, config) for video in videos]
    for name in peers[0] if peers else ():
        counts[name] = [match(p[name], v) for p, v in zip(peers, videos, strict=True)]
    if with_transnet_alone:
        everywhere = _gather_all(videos, config.model_copy(update={"transnet": "all"}))
        counts[TRANSNET] = [
            match(_transnet_cuts(evidence), video)
            for evidence, video in zip(everywhere, videos, strict=True)
        ]
    return [_figure(name, files, left_out.get(name)) for name, files in counts.items()]


def figures_as_json(figures: Iterable[ShotFigure]) -> list[dict[str, Any]]:
    return [asdict(figure) for figure in figures]


def labelled_videos(media: Path) -> list[LabelledVideo]:
    """Videos whose cuts are labelled, by name."""
    cuts: Mapping[str, Any] = json.loads((media / "gt/shot_cuts.json").read_text())
    gradual: Mapping[str, Any] = json.loads((media / "gt/shot_gradual.json").read_text())
    return [
        LabelledVideo(
            name=name,
            path=media / name,
            cuts=tuple(label["cuts"]),
            gradual=tuple((first, last) for first, last in gradual.get(name, ())),
        )
        for name, label in sorted(cuts.items())
        if label["cuts"] is not None
    ]


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


def _gather_all(videos: Sequence[LabelledVideo], config: SplitConfig) -> list[Evidence | None]:
    transnet = load_transnet(config)
    gathered: list[Evidence | None] = []
    for video in videos:
        try:
            with open_video(video.path.absolute().as_uri(), config.limits) as reader:
                gathered.append(gather_evidence(reader, config, transnet))
        except MediaError:
            gathered.append(None)  # nothing decodes, so nobody finds a cut
    return gathered


def _without_transnet(evidence: Evidence | None) -> Evidence | None:
    if evidence is None:
        return None
    unseen = np.full(evidence.num_frames, np.nan, np.float32)
    return replace(evidence, cut=unseen, transition=unseen)


def _ours(
    videos: Sequence[LabelledVideo], gathered: Sequence[Evidence | None], config: EvidenceConfig
) -> list[Counts]:
    return [
        match(_accepted(evidence, config), video)
        for video, evidence in zip(videos, gathered, strict=True)
    ]


def _accepted(evidence: Evidence | None, config: EvidenceConfig) -> list[int]:
    if evidence is None:
        return []
    return [
        boundary.frame
        for boundary in find_boundaries(evidence, config)
        if boundary.rejected is None and 0 < boundary.frame < evidence.num_frames
    ]


def _with(config: SplitConfig, **thresholds: float) -> EvidenceConfig:
    return config.evidence.model_copy(update=thresholds)


def _left_out(
    videos: Sequence[LabelledVideo],
    gathered: Sequence[Evidence | None],
    choices: Sequence[EvidenceConfig],
) -> float:
    """F1 where each file is judged by the choice that is best on all the others."""
    by_choice = [_ours(videos, gathered, choice) for choice in choices]
    totals = [sum(files, Counts()) for files in by_choice]
    judged = Counts()
    for index in range(len(videos)):
        others = [
            Counts(
                total.num_found - files[index].num_found,
                total.num_wrong - files[index].num_wrong,
                total.num_missed - files[index].num_missed,
            )
            for total, files in zip(totals, by_choice, strict=True)
        ]
        best = max(range(len(choices)), key=lambda choice: others[choice].f1)
        judged += by_choice[best][index]
    return judged.f1


class _Recorder(SceneDetector):  # type: ignore[misc]
    """Keeps the cuts of one detector apart from those of the others in the same run."""

    def __init__(self, detector: SceneDetector) -> None:
        super().__init__()
        self.detector = detector
        self.frames: list[int] = []

    def process_frame(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> list[FrameTimecode]:
        cuts = self.detector.process_frame(timecode, frame_img)
        self.frames.extend(cut.frame_num for cut in cuts)
        return []

    def post_process(self, timecode: FrameTimecode) -> list[FrameTimecode]:
        self.frames.extend(cut.frame_num for cut in self.detector.post_process(timecode))
        return []


def _peer_cuts(video: LabelledVideo, config: SplitConfig) -> dict[str, list[int]]:
    """PySceneDetect's detectors as they are, by name."""
    recorders = {
        "pyscenedetect_adaptive": _Recorder(AdaptiveDetector()),
        "pyscenedetect_content": _Recorder(ContentDetector()),
        "pyscenedetect_adaptive_min5": _Recorder(AdaptiveDetector(min_scene_len=5)),
        "pyscenedetect_content_min5": _Recorder(ContentDetector(min_scene_len=5)),
    }
    manager = SceneManager()
    manager.auto_downscale = False
    for recorder in recorders.values():
        manager.add_detector(recorder)
    try:
        with open_video(video.path.absolute().as_uri(), config.limits) as reader:
            manager.detect_scenes(SmallPictureStream(reader, short_side_px=_PEER_SHORT_SIDE_PX))
    except MediaError:
        pass  # nothing decodes: no cuts, as for every other method
    return {name: recorder.frames for name, recorder in recorders.items()}


def _transnet_cuts(evidence: Evidence | None) -> list[int]:
    if evidence is None:
        return []
    runs = runs_above(evidence.cut, _TRANSNET_THRESHOLD)
    return [end for _, end, _ in runs if end < evidence.num_frames]


def _figure(method: str, files: Sequence[Counts], left_out_f1: float | None) -> ShotFigure:
    total = sum(files, Counts())
    low, high = _bootstrap(files)
    return ShotFigure(
        method=method,
        num_files=len(files),
        num_cuts=total.num_found + total.num_missed,
        num_found=total.num_found,
        num_wrong=total.num_wrong,
        num_missed=total.num_missed,
        precision=total.precision,
        recall=total.recall,
        f1=total.f1,
        f1_low=low,
        f1_high=high,
        left_out_f1=left_out_f1,
    )


def _bootstrap(files: Sequence[Counts]) -> tuple[float, float]:
    """Percentile interval of F1 over files drawn with replacement; the same on every run."""
    if not files:
        return 0.0, 0.0
    table = np.array([(c.num_found, c.num_wrong, c.num_missed) for c in files])
    draws = np.random.default_rng(0).integers(0, len(files), (_NUM_BOOTSTRAPS, len(files)))
    found, wrong, missed = table[draws].sum(axis=1).T
    f1 = 2 * found / np.maximum(1, 2 * found + wrong + missed)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(f1, [tail, 1 - tail])
    return float(low), float(high)
