"""Frame rates measured from frame times: the rate, and whether it is constant."""

from collections.abc import Sequence
from dataclasses import dataclass

_MAX_OFF_GRID_FRAMES = 0.5


@dataclass(frozen=True, slots=True)
class Rate:
    """`fps` is the mean rate. Variable: some frame lies over half an interval off an even grid."""

    fps: float
    is_vfr: bool


def measure_rate(times_s: Sequence[float]) -> Rate | None:
    """The rate of frames shown at these increasing times; None for fewer than two frames."""
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        return None
    interval_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1)
    worst_s = max(abs(t - times_s[0] - i * interval_s) for i, t in enumerate(times_s))
    return Rate(fps=1.0 / interval_s, is_vfr=worst_s > _MAX_OFF_GRID_FRAMES * interval_s)
