"""Balance weights: how often a clip is drawn, so that common concepts do not drown rare ones.

Nothing is deleted for balance; the loader draws by weight. The cap follows MetaCLIP's
min(1, t / n) (arXiv 2309.16671); temperature is n^(alpha - 1), alpha 1 natural, 0 uniform over
concepts. The mean weight is 1.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.config import BalanceConfig

_BISECTIONS = 100
Float64 = NDArray[np.float64]


def balance_weights(cluster_N: NDArray[np.int64], config: BalanceConfig) -> Float64:
    """One weight per clip from the size of its cluster."""
    if len(cluster_N) == 0 or config.method == "none":
        return np.ones(len(cluster_N))
    _, inverse, counts = np.unique(cluster_N, return_inverse=True, return_counts=True)
    if config.method == "cap":
        weights = cap_weights(counts, config.cap_quantile)[inverse]
        weights = weights / weights.mean()
    else:
        raw = counts.astype(np.float64)[inverse] ** (config.alpha - 1)
        weights = _scaled_to_mean_one(raw, config.min_weight, config.max_weight)
    return np.round(weights, 6)


def cap_weights(counts: NDArray[np.int64], cap_quantile: float) -> Float64:
    """min(1, t / n) per cluster, t being that quantile of the cluster sizes."""
    cap = np.quantile(counts, cap_quantile)
    weights: Float64 = np.minimum(1.0, float(cap) / counts.astype(np.float64))
    return weights


def _scaled_to_mean_one(raw_N: Float64, lowest: float, highest: float) -> Float64:
    """clip(scale * raw, lowest, highest) with the scale that makes the mean 1 (bisection)."""
    below, above = 0.0, highest / raw_N.min()
    for _ in range(_BISECTIONS):
        middle = (below + above) / 2
        if np.clip(middle * raw_N, lowest, highest).mean() < 1.0:
            below = middle
        else:
            above = middle
    scaled: Float64 = np.clip(above * raw_N, lowest, highest)
    return scaled
