"""Percentile bootstrap: how far a figure could be off with other files of the kind.

Seeded, so that the same values give the same ends.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUM_RESAMPLES = 2000
_TAILS = (0.025, 0.975)


def bootstrap(
    values_N: NDArray[Any], statistic: Callable[[NDArray[Any]], NDArray[np.float64]]
) -> tuple[float, float]:
    """Low and high end at 95 %.

    `values_N` may have further dimensions; `statistic` reduces axis 1 of resamples (resamples x N
    x ...) to one number each.
    """
    if not len(values_N):
        raise ValueError("needs at least one value, got 0")
    index = np.random.default_rng(0).integers(0, len(values_N), (_NUM_RESAMPLES, len(values_N)))
    low, high = np.quantile(statistic(values_N[index]), _TAILS)
    return float(low), float(high)


def bootstrap_share(share: float, count: int) -> tuple[float, float]:
    """The same for a share of `count` yes-or-no values, without drawing them one by one."""
    if not count:
        raise ValueError("needs at least one value, got 0")
    shares = np.random.default_rng(0).binomial(count, share, _NUM_RESAMPLES) / count
    low, high = np.quantile(shares, _TAILS)
    return float(low), float(high)
