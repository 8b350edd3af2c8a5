"""The one form of every result: a number of ours or of a peer, with its count and interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.interval import bootstrap, bootstrap_share

OURS = "ours"
Statistic = Callable[[NDArray[Any]], NDArray[np.float64]]


class EvaluationError(Exception):
    """The folder or the request does not allow an evaluation; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`low` and `high` are the ends of a 95 % bootstrap interval over what `count` counts.

    A share of 0 or 1 resamples to itself, so its interval has no width: there the count tells how
    much it is worth.
    """

    part: str
    measure: str  # with its unit, unless it is a share in [0, 1]
    method: str  # OURS, a variant of it, or a peer
    value: float
    low: float
    high: float
    count: int
    counted: str  # what one of `count` is: files, pairs, clips ...


def mean_figure(
    part: str, measure: str, method: str, values: Sequence[float], counted: str
) -> Figure:
    """The mean of `values`, one per counted thing. Raises EvaluationError without any."""
    return _figure(part, measure, method, values, counted, lambda drawn: drawn.mean(axis=-1))


def median_figure(
    part: str, measure: str, method: str, values: Sequence[float], counted: str
) -> Figure:
    """As mean_figure, with the median."""
    return _figure(part, measure, method, values, counted, lambda d: np.median(d, axis=-1))


def share_figure(
    part: str, measure: str, method: str, hits: Sequence[bool], counted: str
) -> Figure:
    """The share of hits. Raises EvaluationError without any pair, clip or word to count."""
    _need_some(part, measure, hits)
    value = float(np.mean(hits))
    low, high = bootstrap_share(value, len(hits))
    return Figure(part, measure, method, value, low, high, len(hits), counted)


def _figure(
    part: str,
    measure: str,
    method: str,
    values: Sequence[float],
    counted: str,
    statistic: Statistic,
) -> Figure:
    _need_some(part, measure, values)
    sample = np.asarray(values, np.float64)
    low, high = bootstrap(sample, statistic)
    return Figure(part, measure, method, float(statistic(sample)), low, high, len(values), counted)


def _need_some(part: str, measure: str, values: Sequence[object]) -> None:
    if not values:
        raise EvaluationError(f"{part}: the folder holds nothing to measure {measure!r} on")
