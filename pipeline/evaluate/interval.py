"""Percentile bootstrap of a mean: how far a figure could be off with other files of the kind."""

from collections.abc import Sequence

import numpy as np

_NUM_RESAMPLES = 2000


def bootstrap_mean(values: Sequence[float], *, coverage: float = 0.95) -> tuple[float, float]:
    """Low and high end of the interval; seeded, so that the same values give the same ends."""
    sample = np.asarray(values, np.float64)
    if sample.size == 0:
        raise ValueError("needs at least one value, got 0")
    index = np.random.default_rng(0).integers(0, sample.size, (_NUM_RESAMPLES, sample.size))
    tail = 50 * (1 - coverage)
    low, high = np.percentile(sample[index].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)
