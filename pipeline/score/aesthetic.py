"""An aesthetic proxy from classical image statistics. It was never fitted to human ratings.

The mean of five terms in [0, 1]: colorfulness (Hasler and Suesstrunk, 2003), global contrast,
freedom from clipping, sharpness of the sharpest region, and how far the detail lies from an even
spread. Useful to order clips of one pool; not comparable with any learned aesthetic score.
"""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.score.sampler import Clip
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import AestheticScore
from schemas.status import Failure

MODEL_ID = "aesthetic-proxy-1"
_LONG_SIDE = 320
_GRID = 8
# Where each term reaches one half: middling photographs, by eye.
_HALF_COLORFULNESS = 30.0
_HALF_CONTRAST = 45.0
_HALF_SHARPNESS = 12.0


class AestheticStage:
    name: ClassVar[str] = "aesthetic"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = AestheticScore

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, clips: Sequence[Clip]) -> list[AestheticScore | Failure]:
        return [
            AestheticScore(
                model_id=MODEL_ID,
                aesthetic_proxy=float(np.median([aesthetic_proxy(f) for f in c.key_frames_THWC])),
            )
            for c in clips
        ]


def aesthetic_proxy(frame_HWC: NDArray[np.uint8]) -> float:
    """In [0, 1], higher is more pleasing, for one RGB frame."""
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(_GRID, round(width * scale)), max(_GRID, round(height * scale)))
    rgb = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    detail = np.abs(cv2.Laplacian(luma, cv2.CV_32F))
    cells = np.asarray(cv2.resize(detail, (_GRID, _GRID), interpolation=cv2.INTER_AREA), np.float32)
    terms = (
        _saturating(_colorfulness(rgb), _HALF_COLORFULNESS),
        _saturating(float(luma.std()), _HALF_CONTRAST),
        1.0 - min(1.0, 4.0 * float(((luma <= 4) | (luma >= 251)).mean())),
        _saturating(float(np.percentile(cells, 90)), _HALF_SHARPNESS),
        _concentration(cells),
    )
    return float(np.clip(np.mean(terms), 0.0, 1.0))


def _colorfulness(rgb: NDArray[np.float32]) -> float:
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def _concentration(cells: NDArray[np.float32]) -> float:
    """0 for detail spread evenly, 1 for all of it in one cell: one minus the relative entropy."""
    share = cells.ravel() / max(float(cells.sum()), 1e-6)
    entropy = -float((share * np.log(np.maximum(share, 1e-9))).sum())
    return float(np.clip(1.0 - entropy / np.log(len(share)), 0.0, 1.0)) if share.any() else 0.0


def _saturating(value: float, half: float) -> float:
    return value / (value + half)
