"""Overlays that rest on a moving picture: logos and watermarks.

The median over time of the picture's gradient keeps what always stands at the same place and
loses what moves (Dekel et al., "On the effectiveness of visible watermarks", CVPR 2017). A
picture that does not move keeps everything, so there nothing is claimed. A network may take its
place (pipeline/score/overlay_detector.py).
"""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.onnx_model import NotFiniteError, OnnxModel
from pipeline.score.config import OverlaysConfig
from pipeline.score.foreign_detector import ForeignDetector
from pipeline.score.overlay_detector import OverlayDetector, OverlayNetwork
from pipeline.score.sampler import Clip, evenly
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import Box, Overlay, OverlayScore
from schemas.status import Failure

MODEL_ID = "median-gradient-1"
_JOIN_SHARE = 0.02  # of the short side: parts nearer than this are one overlay
_MIN_AREA = 2e-4  # of the picture
_MAX_AREA = 0.06
_MAX_PERSISTENT_SHARE = 0.06  # of all pixels; more of it is a resting picture
_BAR_EDGE_SHARE = 0.4
_MAX_DIRECTEDNESS = 0.8
_STEADY_SHARE = 0.8  # of the frames in which an overlay's edges must have the median's direction


class OverlaysStage:
    name: ClassVar[str] = "overlays"
    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = OverlayScore

    def __init__(self, config: OverlaysConfig) -> None:
        self._config = config
        self._detector: OverlayDetector | None = None

    def setup(self) -> None:
        cv2.setNumThreads(1)
        if self._config.model is not None:
            self._detector = OverlayDetector(_network(self._config), self._config)

    def process(self, clips: Sequence[Clip]) -> list[OverlayScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> OverlayScore | Failure:
        if self._detector is not None:
            return self._detected(clip, self._detector)
        index = evenly(len(clip.luma_THW), self._config.num_frames)
        frames = clip.luma_THW[index]
        found = resting_overlays(frames, self._config)
        overlays = found or ()
        return OverlayScore(
            model_id=MODEL_ID,
            overlays=tuple(overlays),
            area=min(1.0, sum(overlay.box.area for overlay in overlays)),
            comparable=found is not None,
            num_frames=len(frames),
        )

    def _detected(self, clip: Clip, detector: OverlayDetector) -> OverlayScore | Failure:
        try:
            overlays, num_frames = detector.find(clip)
        except NotFiniteError as error:
            return Failure(error_class="not_finite", error=str(error))
        return OverlayScore(
            model_id=detector.model_id,
            overlays=overlays,
            area=min(1.0, sum(overlay.box.area for overlay in overlays)),
            comparable=True,
            num_frames=num_frames,
        )


def _network(config: OverlaysConfig) -> OverlayNetwork:
    assert config.model is not None
    if config.layout is None:
        return OnnxModel(config.model, kind="overlay")
    return ForeignDetector(config.model, config.layout, config.classes)


def resting_overlays(luma_THW: NDArray[np.uint8], config: OverlaysConfig) -> list[Overlay] | None:
    """None where the picture moves too little to tell."""
    if len(luma_THW) < config.num_frames // 2:
        return None
    deviation = luma_THW.std(axis=0, dtype=np.float32)
    if float(np.median(deviation)) < config.min_temporal_sd:
        return None
    dx = np.stack([cv2.Scharr(frame, cv2.CV_16S, 1, 0) for frame in luma_THW])
    dy = np.stack([cv2.Scharr(frame, cv2.CV_16S, 0, 1) for frame in luma_THW])
    middle = np.stack([_median_over_time(dx), _median_over_time(dy)]) / 32.0
    strength = np.linalg.norm(middle, axis=0)
    along = (dx * middle[0] + dy * middle[1]) / 32.0 / np.maximum(strength, 1e-6)
    # Chance keeps some strength in the median; a real edge is there in nearly all frames.
    steady = (along >= 0.5 * strength).mean(axis=0) >= _STEADY_SHARE
    persistent = (strength >= config.min_gradient) & steady
    persistent = _without_bar_edges(persistent)
    if persistent.mean() > _MAX_PERSISTENT_SHARE:
        return None
    return _components(persistent.astype(np.uint8), middle, config)


def _median_over_time(values_THW: NDArray[np.int16]) -> NDArray[np.float64]:
    """As `np.median`, which selects instead of sorting: twice as slow for a few frames."""
    count = len(values_THW)
    ordered = np.sort(values_THW, axis=0)
    return np.asarray(ordered[(count - 1) // 2 : count // 2 + 1].mean(axis=0), np.float64)


def _without_bar_edges(persistent_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the rows and columns that rest over much of their length: edges of borders."""
    kept = persistent_HW.copy()
    for axis in (0, 1):
        is_line = persistent_HW.mean(axis=1 - axis) >= _BAR_EDGE_SHARE
        near_line = cv2.dilate(is_line.astype(np.uint8), np.ones(5, np.uint8)).ravel() > 0
        kept[near_line if axis == 0 else (slice(None), near_line)] = False
    return kept


def _components(
    mask_HW: NDArray[np.uint8], gradient_2HW: NDArray[np.float64], config: OverlaysConfig
) -> list[Overlay]:
    height, width = mask_HW.shape
    reach = max(1, round(_JOIN_SHARE * min(height, width)))
    joined = cv2.dilate(mask_HW, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    overlays = []
    for label in range(1, count):
        rows, columns = np.nonzero((labels == label) & (mask_HW > 0))
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        area = (bottom - top) * (right - left) / (height * width)
        gradient = gradient_2HW[:, rows, columns]
        is_patch = min(bottom - top, right - left) >= 3 and len(rows) >= 12
        if (
            not is_patch
            or _directedness(gradient) > _MAX_DIRECTEDNESS
            or not _MIN_AREA <= area <= _MAX_AREA
        ):
            continue
        box = Box(left=left / width, top=top / height, right=right / width, bottom=bottom / height)
        excess = float(np.linalg.norm(gradient, axis=0).mean()) / config.min_gradient
        overlays.append(
            Overlay(
                kind="corner_logo" if in_corner(box, config.corner_share) else "watermark",
                box=box,
                presence=1.0,
                confidence=min(1.0, excess / 3.0),
            )
        )
    overlays = [o for o in overlays if o.confidence >= config.min_confidence]
    return sorted(overlays, key=lambda o: (o.box.top, o.box.left))


def _directedness(gradient_2N: NDArray[np.float64]) -> float:
    """0: edges of all directions; 1: parallel lines, which rest when the camera moves along them.

    The coherence of the structure tensor.
    """
    small, large = np.linalg.eigvalsh(gradient_2N @ gradient_2N.T)
    return float((large - small) / max(large + small, 1e-9))


def in_corner(box: Box, corner_share: float) -> bool:
    """Whether a box lies wholly in one of the four corners of the picture."""
    is_aside = box.right <= corner_share or box.left >= 1 - corner_share
    return is_aside and (box.bottom <= corner_share or box.top >= 1 - corner_share)
