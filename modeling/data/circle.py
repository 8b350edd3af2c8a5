"""An endless walk over the samples of one bucket that keeps to their weights."""

import numpy as np
from numpy.typing import NDArray

from modeling.data.draw import permutation, share

Indices = NDArray[np.int64]
_GOLDEN_RATIO = 0.6180339887498949  # offsets of passes: evenly spread however many there are


class Circle:
    """The samples in shuffled order around a circle, each as wide as its weight.

    Every pass around it marks `num_points` evenly spaced points; a sample is taken once for each
    point on it. With equal weights and a point per sample that is each sample once a pass. With
    other weights it is the share of the points that the weight asks for, rounded up or down, and
    exactly that on average over passes, because each pass starts at another offset.
    """

    def __init__(
        self,
        samples_N: Indices,
        weight_N: NDArray[np.float64],
        num_points: int,
        *,
        seed: int,
        key: str,
    ) -> None:
        shuffled = permutation(len(samples_N), seed=seed, key=key, step=0, stream="circle")
        self._samples_N = samples_N[shuffled]
        self._num_points = num_points
        self._first_offset = share(seed=seed, key=key, step=0, stream="offset")
        is_once_each = num_points == len(samples_N) and bool(np.all(weight_N == weight_N[0]))
        self._ends_N = None if is_once_each else np.cumsum(weight_N[shuffled])

    def take(self, first: int, num: int) -> Indices:
        """The samples at points first .. first + num - 1 of the walk."""
        passes, point = np.divmod(np.arange(first, first + num), self._num_points)
        if self._ends_N is None:
            once_each: Indices = self._samples_N[point]
            return once_each
        offset = (self._first_offset + passes * _GOLDEN_RATIO) % 1.0
        place = (point + offset) * (self._ends_N[-1] / self._num_points)
        found = np.searchsorted(self._ends_N, place, side="right")
        taken: Indices = self._samples_N[np.minimum(found, len(self._samples_N) - 1)]
        return taken
