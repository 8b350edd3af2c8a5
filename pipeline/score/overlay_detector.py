"""Overlays by a network of kind `overlay`, found in each key frame and voted on over the clip.

Outputs (schemas/overlay_network.py): boxes in shares, scores, kinds. Of boxes of one kind that
overlap in a frame the best stays. What rests is at the same place in most frames; subtitles
change their words and so their width, so those of one row belong together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.onnx_model import WeightsError, require_finite
from pipeline.score.config import OverlaysConfig
from pipeline.score.foreign_detector import ForeignDetector
from pipeline.score.sampler import Clip
from schemas.model_card import ModelCard
from schemas.overlay_network import OVERLAY_KINDS, OVERLAY_OUTPUTS, OVERLAY_THRESHOLDS_KEY
from schemas.scores import Box, Overlay, OverlayKind

_SAME_IN_FRAME = 0.55  # overlap from which on two boxes of a kind are one
_SAME_OVER_TIME = 0.5
_SUBTITLE_PRESENCE = 0.25  # share of the frames: between two lines there is often nothing


@dataclass(frozen=True, slots=True)
class Hit:
    """One box in one frame."""

    frame: int
    kind: OverlayKind
    box: Box
    score: float


class OverlayNetwork(Protocol):
    """What an `OnnxModel` of kind `overlay` is, and a user's own detector too."""

    card: ModelCard
    metadata: dict[str, str]

    def run(self, frames_NTHWC: NDArray[np.uint8], /) -> dict[str, NDArray[Any]]: ...


class OverlayDetector:
    """Raises WeightsError for a network whose thresholds cannot be read."""

    def __init__(self, network: OverlayNetwork, config: OverlaysConfig) -> None:
        self.model_id = network.card.model_id
        self._network = network
        self._config = config
        self._thresholds = _thresholds(network)
        self._card_for = network.card_for if isinstance(network, ForeignDetector) else None
        self._card = network.card.model_copy(update={"num_frames": None})

    def find(self, clip: Clip) -> tuple[tuple[Overlay, ...], int]:
        """The overlays that enough frames agree on, and how many frames were looked at.

        Raises NotFiniteError: a box without a score is no proof that nothing lies there.
        """
        hits, num_frames = self.hits(clip)
        return voted(hits, num_frames, self._config.min_presence), num_frames

    def hits(self, clip: Clip, least: float | None = None) -> tuple[list[Hit], int]:
        """Every box of every key frame, and their number.

        From the threshold of its kind on, or from `least`, whatever its kind.
        """
        card = self._card
        if self._card_for is not None:
            height, width = clip.key_frames_THWC.shape[1:3]
            card = self._card_for((height, width))
        frames = clip.network_frames(card)[0]
        hits = [
            hit for index, frame in enumerate(frames) for hit in self._of_frame(index, frame, least)
        ]
        return hits, len(frames)

    def threshold(self, kind: OverlayKind) -> float:
        """The score from which on a box of this kind counts."""
        return self._thresholds.get(kind, self._config.min_confidence)

    def _of_frame(self, index: int, frame: NDArray[np.uint8], least: float | None) -> list[Hit]:
        outputs = self._network.run(frame[None, None])
        require_finite(self.model_id, outputs)
        boxes, scores, classes = (outputs[name][0] for name in OVERLAY_OUTPUTS)
        hits: list[Hit] = []
        for place in np.argsort(-scores, kind="stable"):
            number, score = int(classes[place]), float(scores[place])
            if not 0 <= number < len(OVERLAY_KINDS):
                raise ValueError(
                    f"{self.model_id}: class {number}, there are {len(OVERLAY_KINDS)} kinds"
                )
            kind = OVERLAY_KINDS[number]
            if not score >= (self.threshold(kind) if least is None else least):
                continue
            left, top, right, bottom = (float(v) for v in np.clip(boxes[place], 0.0, 1.0))
            if not (right > left and bottom > top):
                continue
            box = Box(left=left, top=top, right=right, bottom=bottom)
            if all(h.kind != kind or iou(h.box, box) <= _SAME_IN_FRAME for h in hits):
                hits.append(Hit(index, kind, box, min(1.0, score)))
        return hits


def voted(hits: Sequence[Hit], num_frames: int, min_presence: float) -> tuple[Overlay, ...]:
    """Hits of one kind and place are one overlay, if enough frames have one."""
    groups: list[list[Hit]] = []
    for hit in hits:
        same = [g for g in groups if g[0].kind == hit.kind and _belongs(hit, g[-1])]
        if same:
            same[-1].append(hit)
        else:
            groups.append([hit])
    overlays = []
    for group in groups:
        presence = len({hit.frame for hit in group}) / num_frames
        wanted = min(min_presence, _SUBTITLE_PRESENCE) if _is_subtitle(group[0]) else min_presence
        if presence >= wanted:
            overlays.append(_overlay(group, presence))
    return tuple(sorted(overlays, key=lambda o: (o.box.top, o.box.left, o.kind)))


def _overlay(group: Sequence[Hit], presence: float) -> Overlay:
    """At the median place; subtitles, at the box around all of them."""
    corners = np.array([(h.box.left, h.box.top, h.box.right, h.box.bottom) for h in group])
    if _is_subtitle(group[0]):
        sides = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
    else:
        sides = np.median(corners, axis=0)
    left, top, right, bottom = (float(side) for side in sides)
    return Overlay(
        kind=group[0].kind,
        box=Box(left=left, top=top, right=right, bottom=bottom),
        presence=presence,
        confidence=float(np.mean([hit.score for hit in group])),
    )


def _belongs(hit: Hit, last: Hit) -> bool:
    if not _is_subtitle(hit):
        return iou(hit.box, last.box) >= _SAME_OVER_TIME
    shared = min(hit.box.bottom, last.box.bottom) - max(hit.box.top, last.box.top)
    shorter = min(hit.box.bottom - hit.box.top, last.box.bottom - last.box.top)
    return shared >= 0.5 * shorter


def _is_subtitle(hit: Hit) -> bool:
    return hit.kind == "subtitle"


def _thresholds(network: OverlayNetwork) -> dict[str, float]:
    text = network.metadata.get(OVERLAY_THRESHOLDS_KEY, "{}")
    try:
        return {str(kind): float(value) for kind, value in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{network.card.model_id}: metadata {OVERLAY_THRESHOLDS_KEY!r} is {text!r}, "
            "not a JSON object of numbers; export the network again"
        ) from error


def iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    shared = width * max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    return shared / max(a.area + b.area - shared, 1e-9)
