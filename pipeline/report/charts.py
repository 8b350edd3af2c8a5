"""Charts as inline SVG: no script, no library, the same picture everywhere."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 460, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 26, 18
_NUM_BINS = 48
_SKEWED = 10.0  # ratio of the 99th percentile to the median, from which the axis is logarithmic


def histogram(
    numbers: NDArray[np.float64], lines: Mapping[float, Sequence[str]], *, label: str
) -> str:
    """Counts of the finite numbers; `lines` are limits with the names of the tiers that set them.

    The ends of the axis are the 0.5th and 99.5th percentile, widened to show every limit; what
    lies beyond is counted into the outermost bins.
    """
    known = numbers[np.isfinite(numbers)]
    axis = _Axis.of(known, list(lines))
    counts, _ = np.histogram(axis.positions(known), bins=_NUM_BINS, range=(0.0, 1.0))
    top = max(1, int(counts.max()))
    bar = (_WIDTH - _LEFT - _RIGHT) / _NUM_BINS
    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">',
    ]
    for place, count in enumerate(counts.tolist()):
        if count:
            height = max(1.5, (floor - _TOP) * count / top)
            parts.append(
                f'<rect class="bin" x="{_LEFT + place * bar:.1f}" y="{floor - height:.1f}" '
                f'width="{bar - 1:.1f}" height="{height:.1f}"><title>{count} clips</title></rect>'
            )
    parts.append(f'<path class="axis" d="M{_LEFT} {floor}H{_WIDTH - _RIGHT}"/>')
    parts.extend(_tick(axis.low, "start", axis))
    parts.extend(_tick(axis.middle, "middle", axis))
    parts.extend(_tick(axis.high, "end", axis))
    parts.extend(_lines(axis, lines, floor))
    parts.append("</svg>")
    return "".join(parts)


class _Axis:
    """From numbers to positions between 0 and 1, linear or logarithmic."""

    def __init__(self, low: float, high: float, *, is_log: bool) -> None:
        self.low, self.high, self.is_log = low, high, is_log

    @classmethod
    def of(cls, known: NDArray[np.float64], limits: Sequence[float]) -> "_Axis":
        ends = np.percentile(known, (0.5, 50, 99.5)) if known.size else np.array([0.0, 0.5, 1.0])
        low, middle, high = (float(end) for end in ends)
        low, high = min(low, *limits, low), max(high, *limits, high)
        is_log = low > 0 and middle > 0 and high / middle > _SKEWED
        if high <= low:
            low, high = low - 0.5, high + 0.5
        return cls(low, high, is_log=is_log)

    @property
    def middle(self) -> float:
        if self.is_log:
            return float(np.sqrt(self.low * self.high))
        return (self.low + self.high) / 2

    def positions(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.clip(numbers, self.low, self.high)
        if self.is_log:
            return np.asarray(np.log(inside / self.low) / np.log(self.high / self.low))
        return np.asarray((inside - self.low) / (self.high - self.low))

    def x(self, number: float) -> float:
        share = float(self.positions(np.array([number]))[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _tick(number: float, anchor: str, axis: _Axis) -> list[str]:
    place = f'x="{axis.x(number):.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}"'
    return [f'<text class="tick" {place}>{number:.3g}</text>']


def _lines(axis: _Axis, lines: Mapping[float, Sequence[str]], floor: float) -> list[str]:
    """Limits with their tiers' names above, which step down where they would meet."""
    parts: list[str] = []
    last_x, level = -100.0, 0
    for number in sorted(lines):
        x = axis.x(number)
        level = (level + 1) % 2 if x - last_x < 60 else 0
        last_x = x
        anchor = "start" if x < _WIDTH * 0.8 else "end"
        shift = 4 if anchor == "start" else -4
        name = escape(", ".join(lines[number]))
        parts.append(
            f'<path class="limit" d="M{x:.1f} {4 + 11 * level}V{floor}"/>'
            f'<text class="limit" x="{x + shift:.1f}" y="{12 + 11 * level}" '
            f'text-anchor="{anchor}">{name}: {number:g}</text>'
        )
    return parts
