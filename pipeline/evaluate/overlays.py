"""Overlays of known place on encoded clips: the network, clip and frame, and the median gradient.

The clips and their boxes are those of `python -m benchmarks.overlays clips`: nine kinds laid over
photographs that move or rest, and plain clips (photographs, photographs of natural text, excerpts
of real videos). A box is right where it overlaps a true one of its kind by half; the median
gradient knows two kinds only, so there any kind of overlay will do, and it is judged on the clips
of the kind in question and the plain ones, the network on all.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.figures import OURS, Figure, mean_figure, share_figure
from pipeline.evaluate.motion import sampled_file
from pipeline.media.config import MediaLimits
from pipeline.media.video import open_video
from pipeline.onnx_model import OnnxModel
from pipeline.score.borders import BordersStage
from pipeline.score.config import ScoreConfig
from pipeline.score.crop import bars_of, clean_crop, obstacles_of
from pipeline.score.overlay_detector import Hit, OverlayDetector, iou, voted
from pipeline.score.overlays import OverlaysStage
from pipeline.score.sampler import Clip
from pipeline.score.text import TextStage
from schemas.scores import BorderScore, Box, Overlay, OverlayScore, TextScore

PART = "overlays"
LABEL_FILE = "gt/overlays.json"
PEER = "median gradient"
_FRAMES = f"{OURS}, single frames"
_LEAST = 0.05  # score of a box that is counted for the average precision at all
_MIN_OVERLAP = 0.5
_MIN_IGNORED_SHARE = 0.3  # of a wrong box inside an ignored one: it counts neither way
_SUBTITLE_PRESENCE = 0.25
_NUM_RESAMPLES = 300
_GRID = 200  # cells of a side, to count areas under boxes
_NUM_BINS = 5
_SCENE_TEXT = "scene_text"


@dataclass(frozen=True, slots=True)
class Found:
    """`kind` None: of any kind."""

    kind: str | None
    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class Wanted:
    kind: str
    box: Box
    is_ignored: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """Boxes of one kind in one picture or clip: score and whether right; how many there were."""

    source: str
    pairs: tuple[tuple[float, bool], ...]
    total: int


@dataclass(slots=True)
class _Tally:
    """What each method did, over all clips."""

    judged: dict[tuple[str, str], list[Judged]] = field(default_factory=lambda: defaultdict(list))
    hits: dict[tuple[str, str], list[bool]] = field(default_factory=lambda: defaultdict(list))
    alarms: dict[tuple[str, str], list[bool]] = field(default_factory=lambda: defaultdict(list))
    confidences: list[tuple[float, bool]] = field(default_factory=list)
    lost: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    left: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))


def evaluate_overlays(
    media: Path, *, model: str = "overlays", max_clips: int | None = None
) -> list[Figure]:
    """`model`: the network, as `score.overlays.model` names it; OURS is its vote over the clip."""
    labels: dict[str, Any] = json.loads((media / LABEL_FILE).read_text())
    config = ScoreConfig()
    detector = OverlayDetector(OnnxModel(model, kind="overlay"), config.overlays)
    peer = OverlaysStage(config.overlays.model_copy(update={"model": None}))
    text = TextStage(config.text)
    peer.setup()
    text.setup()
    kinds = sorted({str(label["kind"]) for label in labels.values() if label["kind"]})
    tally = _Tally()
    for name, label in list(labels.items())[:max_clips]:
        clip = read_clip(media / name, len(label["frames"]))
        hits, num_frames = detector.hits(clip, _LEAST)
        sure = [hit for hit in hits if hit.score >= detector.threshold(hit.kind)]
        found = voted(sure, num_frames, config.overlays.min_presence)
        (resting,) = peer.process([clip])
        assert isinstance(resting, OverlayScore)
        wanted = wanted_of_clip(label["frames"], num_frames)
        _judge(tally, kinds, label, wanted, hits, num_frames, found, resting.overlays)
        ours = resting.model_copy(update={"overlays": found, "comparable": True})
        _crop(tally, config, clip, text, label["kind"], wanted, {OURS: ours, PEER: resting})
    return list(_figures(tally, kinds))


def wanted_of_clip(frames: Sequence[Sequence[Mapping[str, Any]]], num_keys: int) -> list[Wanted]:
    """What a whole clip shows: boxes of half of the frames, and all lines of a subtitle as one."""
    seen: dict[tuple[str, tuple[float, ...]], list[bool]] = defaultdict(list)
    lines: list[tuple[float, ...]] = []
    for number in key_frames(len(frames), num_keys):
        for row in frames[number]:
            sides = tuple(float(side) for side in row["box"])
            if row["kind"] != "subtitle":
                seen[row["kind"], sides].append(bool(row["ignore"]))
            elif not row["ignore"]:
                lines.append(sides)
    wanted = [
        Wanted(kind, _box(sides), len(ignored) < num_keys / 2 or sum(ignored) > len(ignored) / 2)
        for (kind, sides), ignored in seen.items()
        if kind != _SCENE_TEXT
    ]
    if lines:
        corners = np.array(lines)
        around = (*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0))
        is_rare = len(lines) < _SUBTITLE_PRESENCE * num_keys
        wanted.append(Wanted("subtitle", _box(around), is_rare))
    return wanted


def key_frames(num_frames: int, num_keys: int) -> list[int]:
    """Which frames the sampler takes: those about each equal part's middle, give or take one."""
    step = num_frames / num_keys
    return [int(np.ceil(step * (k + 0.5) - 0.5 - 1e-6)) for k in range(num_keys)]


def judge(source: str, kind: str, found: Sequence[Found], wanted: Sequence[Wanted]) -> Judged:
    """Boxes of `kind`, and those of any, against the wanted ones of that kind, the surest first."""
    free = [w.box for w in wanted if w.kind == kind and not w.is_ignored]
    ignored = [w.box for w in wanted if w.is_ignored]
    total, pairs = len(free), []
    for one in sorted((f for f in found if f.kind in (kind, None)), key=lambda f: -f.score):
        overlaps = [iou(one.box, box) for box in free]
        if overlaps and max(overlaps) >= _MIN_OVERLAP:
            del free[int(np.argmax(overlaps))]
            pairs.append((one.score, True))
        elif not any(iou(one.box, box) > _MIN_IGNORED_SHARE for box in ignored):
            pairs.append((one.score, False))
    return Judged(source, tuple(pairs), total)


def average_precision(judged: Sequence[Judged]) -> float:
    """Area under the interpolated curve; nan where there is nothing to find."""
    total = sum(one.total for one in judged)
    if not total:
        return float("nan")
    pairs = sorted((pair for one in judged for pair in one.pairs), key=lambda pair: -pair[0])
    hits = np.array([is_right for _, is_right in pairs], bool)
    recall = np.cumsum(hits) / total
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * best_later))


def by_source(
    groups: Sequence[Sequence[Judged]], statistic: Callable[[list[list[Judged]]], float]
) -> tuple[float, float]:
    """95 % ends of `statistic` of all groups when whole sources are drawn again."""
    sources = sorted({one.source for group in groups for one in group})
    members = [
        {name: [one for one in group if one.source == name] for name in sources} for group in groups
    ]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(_NUM_RESAMPLES):
        drawn = [sources[int(i)] for i in rng.integers(0, len(sources), len(sources))]
        values.append(statistic([[one for name in drawn for one in m[name]] for m in members]))
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def _judge(
    tally: _Tally, kinds: Sequence[str], label: Mapping[str, Any], wanted: Sequence[Wanted],
    hits: Sequence[Hit], num_frames: int, found: Sequence[Overlay], resting: Sequence[Overlay],
) -> None:  # fmt: skip
    source, own = str(label["source"]), label["kind"]
    everything = [
        Found(overlay.kind, overlay.box, overlay.confidence * overlay.presence)
        for overlay in voted(hits, num_frames, 1 / num_frames)
    ]
    anything = [Found(None, overlay.box, overlay.confidence) for overlay in resting]
    deployed = [Found(overlay.kind, overlay.box, overlay.confidence) for overlay in found]
    for kind in kinds:
        tally.judged[OURS, kind].append(judge(source, kind, everything, wanted))
        for index, number in enumerate(key_frames(len(label["frames"]), num_frames)):
            of_frame = [Found(hit.kind, hit.box, hit.score) for hit in hits if hit.frame == index]
            rows = label["frames"][number]
            shown = [Wanted(row["kind"], _box(row["box"]), bool(row["ignore"])) for row in rows]
            tally.judged[_FRAMES, kind].append(judge(source, kind, of_frame, shown))
        mine = judge(source, kind, deployed, wanted)
        tally.confidences += mine.pairs
        if own == kind:
            tally.hits[OURS, kind] += _found_each(mine)
        if own in (kind, None):
            theirs = judge(source, kind, anything, wanted)
            tally.judged[PEER, kind].append(theirs)
            if own == kind:
                tally.hits[PEER, kind] += _found_each(theirs)
    if own is None:
        for method, boxes in ((OURS, found), (PEER, resting)):
            tally.alarms[method, str(label["set"])].append(bool(boxes))


def _found_each(judged: Judged) -> list[bool]:
    num_right = sum(is_right for _, is_right in judged.pairs)
    return [True] * num_right + [False] * (judged.total - num_right)


def _crop(
    tally: _Tally, config: ScoreConfig, clip: Clip, text_stage: TextStage, own: str | None,
    wanted: Sequence[Wanted], methods: Mapping[str, OverlayScore],
) -> None:  # fmt: skip
    """Clean picture that a crop loses, and overlays that it leaves, in shares of either."""
    (borders,) = BordersStage(config.borders).process([clip])
    (text,) = text_stage.process([clip])
    assert isinstance(borders, BorderScore)
    assert isinstance(text, TextScore)
    covered = np.zeros((_GRID, _GRID), bool)
    for one in wanted:
        covered |= _cells(one.box)
    height, width = clip.native_luma_THW.shape[1:]
    for method, overlays in methods.items():
        obstacles = obstacles_of(text, overlays, config.overlays.corner_share)
        bars = bars_of(overlays)
        kept = _cells(clean_crop((height, width), borders, obstacles, config.crop, bars))
        which = "plain" if own is None else "overlaid"
        if not covered.all():
            tally.lost[method, which].append(float((~kept & ~covered).sum() / (~covered).sum()))
        if own is not None and covered.any():
            tally.left[method, own].append(float((kept & covered).sum() / covered.sum()))


def _cells(box: Box) -> NDArray[np.bool_]:
    """Cells of a square grid over the picture whose middle lies in the box."""
    at = (np.arange(_GRID) + 0.5) / _GRID
    return np.asarray(
        ((at >= box.top) & (at < box.bottom))[:, None] & (at >= box.left) & (at < box.right)
    )


def _figures(tally: _Tally, kinds: Sequence[str]) -> Iterator[Figure]:
    for method in (OURS, _FRAMES, PEER):
        groups = [tally.judged[method, kind] for kind in kinds]
        for kind, group in zip(kinds, groups, strict=True):
            if any(one.total for one in group):
                yield _precision_figure(f"AP50 {kind}", method, [group])
        if any(one.total for group in groups for one in group):
            yield _precision_figure("mean AP50", method, groups)
    for (method, kind), hits in tally.hits.items():
        if hits:
            yield share_figure(PART, f"found: {kind}", method, hits, "boxes")
    for (method, origin), alarms in tally.alarms.items():
        yield share_figure(PART, f"alarm on plain clip: {origin}", method, alarms, "clips")
    for method in (OURS, PEER):
        together = [a for (m, _), alarms in tally.alarms.items() if m == method for a in alarms]
        if together:
            yield share_figure(PART, "alarm on plain clip", method, together, "clips")
    for (method, which), shares in tally.lost.items():
        yield mean_figure(PART, f"crop: clean picture lost, {which}", method, shares, "clips")
    for (method, kind), shares in tally.left.items():
        yield mean_figure(PART, f"crop: area left of {kind}", method, shares, "clips")
    for number in range(_NUM_BINS):
        low, high = number / _NUM_BINS, (number + 1) / _NUM_BINS
        right = [ok for c, ok in tally.confidences if low <= c < high + (high == 1)]
        if right:
            yield share_figure(
                PART, f"right at confidence {low:.1f} to {high:.1f}", OURS, right, "boxes"
            )


def _precision_figure(measure: str, method: str, groups: Sequence[Sequence[Judged]]) -> Figure:
    def mean(drawn: Sequence[Sequence[Judged]]) -> float:
        values = [average_precision(group) for group in drawn]
        known = [value for value in values if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    low, high = by_source(groups, mean)
    count = sum(one.total for group in groups for one in group)
    return Figure(PART, measure, method, mean(groups), low, high, count, "boxes")


def read_clip(path: Path, num_frames: int) -> Clip:
    with open_video(path.absolute().as_uri(), MediaLimits()) as reader:
        size_HW, fps = reader.display_size, reader.probe.fps
    if not fps:
        raise RuntimeError(f"{path}: its frame rate is unknown")
    return sampled_file(path, num_frames, fps, size_HW)


def _box(sides: Sequence[float]) -> Box:
    left, top, right, bottom = (min(1.0, max(0.0, float(side))) for side in sides)
    return Box(left=left, top=top, right=right, bottom=bottom)
