"""Camera movement of rendered and of real clips, the network beside plain geometry.

Rendered: the 14 classes, as layered scenes of photographs that no training saw; mixed motion counts
as wrong whatever it is called. Real: static, handheld or moving; a clip without a class counts as
moving. Both methods see the same flow. A method is sure of a class where a caption would name it:
from a confidence of 0.6 on, the network also from its class's threshold on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.camera_clips import (
    MOVING,
    Labelled,
    real_clips,
    rendered_clips,
)
from pipeline.evaluate.figures import OURS, EvaluationError, Figure, share_figure
from pipeline.evaluate.interval import bootstrap
from pipeline.score.camera import CameraNetwork, learned_score
from pipeline.score.camera_geometry import geometric_score
from pipeline.score.config import ScoreConfig
from pipeline.score.flow import FlowEstimator
from schemas.camera_network import CAMERA_CLASSES
from schemas.scores import CameraScore
from schemas.status import Failure

PART = "camera"
PEER = "geometry"
_SURE = 0.6  # as captions are configured by default
NUM_RENDERED = 168
_NUM_BINS = 15
_KINDS = ("static", "handheld", "horizontal", "vertical", "depth", "around")
_STEADINESS = ("static_shot", "handheld_shot", MOVING)


@dataclass(frozen=True, slots=True)
class Judged:
    """What one method says of a clip; `found` None: no class, "" where nothing was measured."""

    name: str
    label: str | None
    found: str | None
    confidence: float
    is_sure: bool


def evaluate_camera(media: Path, *, num_rendered: int = NUM_RENDERED) -> list[Figure]:
    """Raises EvaluationError without clips."""
    figures: list[Figure] = []
    rendered = judge(rendered_clips(media, num_rendered))
    for method, judged in rendered.items():
        figures += _figures("rendered", method, judged, CAMERA_CLASSES)
        merged = [_merged(j, _kind) for j in judged]
        figures.append(macro_f1_figure("rendered: macro-F1, six kinds", method, merged, _KINDS))
    for method, judged in judge(real_clips(media)).items():
        figures += _figures("real", method, [steadiness(j) for j in judged], _STEADINESS)
    return figures


def judge(clips: Iterable[Labelled]) -> dict[str, list[Judged]]:
    """By method, from one flow of each clip."""
    config = ScoreConfig()
    flow = FlowEstimator(config.flow)
    flow.setup()
    network = CameraNetwork(config.camera.model)
    judged: dict[str, list[Judged]] = {OURS: [], PEER: []}
    for item in clips:
        track = item.clip if isinstance(item.clip, Failure) else flow.track(item.clip)
        if isinstance(track, Failure):
            for method in judged:
                judged[method].append(Judged(item.name, item.label, "", 0.0, False))
            continue
        peer = geometric_score(track, config.camera)
        ours = learned_score(track, peer, network, config.camera)
        judged[OURS].append(
            _judged(item, ours, is_sure=bool(ours.is_sure) and ours.confidence >= _SURE)
        )
        judged[PEER].append(_judged(item, peer, is_sure=peer.confidence >= _SURE))
    return judged


def macro_f1_figure(
    measure: str, method: str, judged: Sequence[Judged], classes: Sequence[str]
) -> Figure:
    """The mean of the classes' F1; the interval is over clips."""
    if not judged:
        raise EvaluationError(f"{PART}: the folder holds nothing to measure {measure!r} on")
    number = {name: index for index, name in enumerate(classes)}
    pairs = np.array([[number.get(j.label or "", -1), number.get(j.found or "", -1)]
                      for j in judged])  # fmt: skip

    def macro_f1(drawn: NDArray[Any]) -> NDArray[np.float64]:
        scores = []
        for index in range(len(classes)):
            is_label, is_found = drawn[..., 0] == index, drawn[..., 1] == index
            total = is_label.sum(axis=-1) + is_found.sum(axis=-1)
            hits = (is_label & is_found).sum(axis=-1)
            scores.append(np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan))
        return np.asarray(np.nanmean(scores, axis=0), np.float64)

    low, high = bootstrap(pairs, macro_f1)
    value = float(macro_f1(pairs))
    return Figure(PART, measure, method, value, low, high, len(judged), "clips")


def calibration_figure(measure: str, method: str, judged: Sequence[Judged]) -> Figure:
    """Expected calibration error over 15 bins, of clips that got a class."""
    pairs = np.array([[j.confidence, j.found == j.label] for j in judged if j.found])
    if not len(pairs):
        raise EvaluationError(f"{PART}: no clip got a class, so there is no {measure!r}")

    def error(drawn: NDArray[Any]) -> NDArray[np.float64]:
        bins = np.minimum((drawn[..., 0] * _NUM_BINS).astype(int), _NUM_BINS - 1)
        gap = drawn[..., 0] - drawn[..., 1]
        sums = [np.abs(np.where(bins == b, gap, 0).sum(axis=-1)) for b in range(_NUM_BINS)]
        return np.asarray(np.sum(sums, axis=0) / drawn.shape[-2], np.float64)

    low, high = bootstrap(pairs, error)
    return Figure(PART, measure, method, float(error(pairs)), low, high, len(pairs), "clips")


def _figures(
    kind: str, method: str, judged: Sequence[Judged], classes: Sequence[str]
) -> list[Figure]:
    name = f"{kind}: macro-F1, {len(classes)} classes"
    sure = [j for j in judged if j.is_sure]
    named = [j for j in judged if j.label is not None]
    figures = [
        macro_f1_figure(name, method, judged, classes),
        share_figure(PART, f"{kind}: right class", method,
                     [j.found == j.label for j in named], "clips"),
        share_figure(PART, f"{kind}: sure of a class", method,
                     [j.is_sure for j in judged], "clips"),
        calibration_figure(f"{kind}: calibration error", method, judged),
    ]  # fmt: skip
    if sure:
        right = [j.found == j.label for j in sure]
        figures.append(share_figure(PART, f"{kind}: right where sure", method, right, "clips"))
    return figures


def _judged(item: Labelled, score: CameraScore, *, is_sure: bool) -> Judged:
    is_sure = is_sure and score.movement is not None
    return Judged(item.name, item.label, score.movement, score.confidence, is_sure)


def _merged(judged: Judged, merge: Callable[[str | None], str | None]) -> Judged:
    label = None if judged.label is None else merge(judged.label)
    found = "" if judged.found == "" else merge(judged.found)
    return Judged(judged.name, label, found, judged.confidence, judged.is_sure)


def _kind(movement: str | None) -> str | None:
    if movement is None:
        return None
    kind, direction = movement.split("_")
    if kind in ("pan", "tilt"):
        return "horizontal" if direction in ("left", "right") else "vertical"
    return "depth" if kind == "zoom" else kind


def steadiness(judged: Judged) -> Judged:
    """The same judgement with static, handheld and moving as its classes."""
    return _merged(judged, _steadiness)


def _steadiness(movement: str | None) -> str:
    return movement if movement is not None and movement in _STEADINESS else MOVING
