"""Average precision at an overlap of 0.5, and what a threshold brings, over held-out renderings.

Precision counts all detections down to each one, its best later value taken (the area under the
interpolated curve, as PASCAL VOC since 2010). Ignored boxes count neither way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.perception.overlays.render import Truth

Floats = NDArray[np.float64]
MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Detections:
    """Of one picture, in shares, the best first."""

    boxes_N4: NDArray[np.float32]
    scores_N: NDArray[np.float32]
    labels_N: NDArray[np.int64]


def iou(boxes_N4: NDArray[np.float32], others_M4: NDArray[np.float32]) -> Floats:
    """N x M."""
    low = np.maximum(boxes_N4[:, None, :2], others_M4[None, :, :2])
    high = np.minimum(boxes_N4[:, None, 2:], others_M4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1).astype(np.float64)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes_N4, others_M4)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-12))


def suppress(detections: Detections, *, max_iou: float) -> Detections:
    """Without those that a better one of the same class overlaps by more."""
    order = np.argsort(-detections.scores_N, kind="stable")
    boxes, labels = detections.boxes_N4[order], detections.labels_N[order]
    overlap = iou(boxes, boxes) * (labels[:, None] == labels)
    kept: list[int] = []
    for index in range(len(order)):
        if not kept or overlap[index, kept].max() <= max_iou:
            kept.append(index)
    chosen = order[kept]
    return Detections(
        detections.boxes_N4[chosen], detections.scores_N[chosen], detections.labels_N[chosen]
    )


def judged(
    found: Sequence[Detections], truths: Sequence[Truth], label: int
) -> tuple[Floats, NDArray[np.bool_], int]:
    """Scores of one class, best first, whether each is right, and how many boxes there were."""
    scores, hits, total = [], [], 0
    for detections, truth in zip(found, truths, strict=True):
        wanted = (truth.labels_N == label) & ~truth.ignored_N
        total += int(wanted.sum())
        is_free = wanted.copy()
        mine = detections.labels_N == label
        overlaps = iou(detections.boxes_N4[mine], truth.boxes_N4)
        for score, overlap in zip(detections.scores_N[mine], overlaps, strict=True):
            open_overlap = np.where(is_free, overlap, 0)
            if len(overlap) and open_overlap.max() >= MIN_IOU:
                is_free[int(open_overlap.argmax())] = False
                scores.append(float(score))
                hits.append(True)
            elif not (overlap[truth.ignored_N] > 0.3).any():
                scores.append(float(score))
                hits.append(False)
    order = np.argsort(-np.array(scores), kind="stable")
    return np.array(scores)[order], np.array(hits, bool)[order], total


def average_precision(hits: NDArray[np.bool_], total: int) -> float:
    """0 without any detection; nan without any box."""
    if not total:
        return float("nan")
    recall = np.cumsum(hits) / total
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * best_later))


def threshold_for(
    scores: Floats, hits: NDArray[np.bool_], *, precision: float, least: float
) -> float:
    """The lowest score from which on this share is right; `least` at the lowest, 1 for never."""
    shares = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    good = np.flatnonzero(shares >= precision)
    return max(least, float(scores[good[-1]])) if len(good) else 1.0
