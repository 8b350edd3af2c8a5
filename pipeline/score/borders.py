"""Letterbox, pillarbox and frame bars, to the pixel.

A bar is a run of rows (or columns) from the edge that are even and stay as they are in all
sampled frames, and that end in a straight edge: one row further, much of the picture differs.
Black bars may be noisy; white and colored ones must be even. Without the straight edge it is
sky, snow or night, not a bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.score.config import BordersConfig
from pipeline.score.sampler import Clip
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import BorderScore
from schemas.status import Failure

_TRIM_PERCENT = 2.0  # of a row's pixels that ringing and noise may spoil
_MAX_EVEN_RANGE = 14.0  # 8-bit levels between the trimmed ends of a colored bar's rows
_MAX_CHANGE = 14.0  # 8-bit levels that a bar's pixels may change over time
_MIN_STEP = 10.0  # 8-bit levels across the bar's edge
_STEP_REACH_PX = 5  # the encoder blurs an edge over so many pixels
_MIN_EDGE_SHARE = 0.35  # of the edge's pixels that show the step
_FIRST_ROWS = 8
_ROUNDS = 2  # bars on all four sides: the second round measures inside the first one's picture


class BordersStage:
    name: ClassVar[str] = "borders"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = BorderScore

    def __init__(self, config: BordersConfig) -> None:
        self._config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, clips: Sequence[Clip]) -> list[BorderScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> BorderScore:
        frames = clip.native_luma_THW
        if frames.mean(dtype=np.float64) < self._config.min_clip_luma:
            return BorderScore(left_px=0, right_px=0, top_px=0, bottom_px=0)
        return find_borders(frames.min(axis=0), frames.max(axis=0), self._config)


@dataclass(slots=True)
class _Rows:
    """Trimmed extremes of each row over time and along the row, and its change over time."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    change: NDArray[np.float64]


def find_borders(
    min_HW: NDArray[np.uint8], max_HW: NDArray[np.uint8], config: BordersConfig
) -> BorderScore:
    """Bars of a picture given each pixel's darkest and brightest luma over time."""
    height, width = min_HW.shape
    top = bottom = left = right = 0
    for _ in range(_ROUNDS):
        inside = (slice(0, height), slice(left, width - right))
        top, bottom = _bars(min_HW[inside], max_HW[inside], config)
        inside = (slice(top, height - bottom), slice(0, width))
        left, right = _bars(min_HW[inside].T, max_HW[inside].T, config)
    return BorderScore(left_px=left, right_px=right, top_px=top, bottom_px=bottom)


def _bars(
    low_HW: NDArray[np.uint8], high_HW: NDArray[np.uint8], config: BordersConfig
) -> tuple[int, int]:
    """Heights of the bars at the first and the last rows."""
    limit = int(low_HW.shape[0] * config.max_bar_share)
    first = _bar(low_HW, high_HW, limit, config)
    last = _bar(low_HW[::-1], high_HW[::-1], limit, config)
    return first, last


def _bar(
    low_HW: NDArray[np.uint8], high_HW: NDArray[np.uint8], limit: int, config: BordersConfig
) -> int:
    # Most pictures have no bar, which their first rows tell: look at more only where needed.
    num_rows = min(limit, _FIRST_ROWS)
    while num_rows > 0:
        candidates = [
            num_rows if is_bar.all() else int(np.argmin(is_bar))
            for is_bar in _bar_rows(low_HW[:num_rows], high_HW[:num_rows], config)
        ]
        if num_rows == limit or max(candidates) < num_rows:
            found = (n for n in candidates if n > 0 and _has_straight_edge(low_HW, high_HW, n))
            return next(found, 0)
        num_rows = min(limit, 4 * num_rows)
    return 0


def _bar_rows(
    low_HW: NDArray[np.uint8], high_HW: NDArray[np.uint8], config: BordersConfig
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows could belong to a dark bar and to an even one, counted from the edge."""
    rows = _Rows(
        low=np.percentile(low_HW, _TRIM_PERCENT, axis=1),
        high=np.percentile(high_HW, 100 - _TRIM_PERCENT, axis=1),
        change=np.percentile(high_HW.astype(np.int16) - low_HW, 100 - _TRIM_PERCENT, axis=1),
    )
    is_dark = rows.high <= config.max_dark_luma
    is_even = (rows.high - rows.low <= _MAX_EVEN_RANGE) & (rows.change <= _MAX_CHANGE)
    # An even bar has one color: later rows must lie near the first one.
    near_first = (np.abs(rows.low - rows.low[0]) <= _MAX_EVEN_RANGE) & (
        np.abs(rows.high - rows.high[0]) <= _MAX_EVEN_RANGE
    )
    return is_dark, is_even & near_first


def _has_straight_edge(
    low_HW: NDArray[np.uint8], high_HW: NDArray[np.uint8], thickness: int
) -> bool:
    """Whether much of the picture differs from the bar right behind its last row."""
    behind = slice(thickness, thickness + _STEP_REACH_PX)
    if low_HW[behind].shape[0] == 0:
        return False
    bar = slice(max(0, thickness - _STEP_REACH_PX), max(1, thickness - 1))
    bar_low = np.median(low_HW[bar].astype(np.float64), axis=0)
    bar_high = np.median(high_HW[bar].astype(np.float64), axis=0)
    brighter = high_HW[behind].max(axis=0) - bar_high >= _MIN_STEP
    darker = bar_low - low_HW[behind].min(axis=0) >= _MIN_STEP
    return bool((brighter | darker).mean() >= _MIN_EDGE_SHARE)
