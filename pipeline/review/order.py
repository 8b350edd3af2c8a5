"""Which clips people look at first: every concept in turn, or those that barely got in."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.tier.config import Rule, TierConfig
from pipeline.tier.rules import Candidates
from schemas.base import StrictModel

Order = Literal["mixed", "concepts", "thresholds", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)


class Closest(StrictModel):
    """The limit that a clip came nearest to; `margin` in interquartile ranges of that score."""

    score: str
    side: Literal["min", "max"]
    limit: float
    value: float
    margin: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the orders know about a clip."""

    clip_id: str
    cluster: int | None
    closest: Closest | None  # None: the tier sets no limit on a number that the clip has

    @property
    def draw(self) -> str:
        """A fixed lot: the same clip has the same place in every run."""
        return hashlib.sha256(self.clip_id.encode()).hexdigest()


def closest_limits(candidates: Candidates, tier: TierConfig) -> list[Closest | None]:
    """For every row, the limit of the tier with the smallest margin.

    Limits that only keep unusable material out are left aside, unless there are no others.
    """
    rules = [rule for rule in tier.rules if not rule.fixed] or tier.rules
    if not rules:
        return [None] * candidates.num_rows
    margins = np.stack([_margins(candidates.numbers(rule.score), rule) for rule in rules])
    nearest = np.argmin(margins, axis=0)
    found: list[Closest | None] = []
    for row, place in enumerate(nearest.tolist()):
        rule, margin = rules[place], float(margins[place, row])
        if not np.isfinite(margin):
            found.append(None)
            continue
        value = float(candidates.numbers(rule.score)[row])
        found.append(
            Closest(score=rule.score, side=rule.side, limit=rule.value, value=value, margin=margin)
        )
    return found


def in_order(candidates: Sequence[Candidate], order: Order) -> list[str]:
    """Clip ids, first to be looked at first. Ties fall by the clip's lot."""
    if order == "random":
        return [one.clip_id for one in sorted(candidates, key=lambda one: one.draw)]
    if order == "concepts":
        return _concepts_in_turn(candidates)
    if order == "thresholds":
        return _closest_first(candidates)
    both = itertools.chain.from_iterable(
        zip(_concepts_in_turn(candidates), _closest_first(candidates), strict=True)
    )
    return list(dict.fromkeys(both))


def _closest_first(candidates: Sequence[Candidate]) -> list[str]:
    def key(one: Candidate) -> tuple[float, str]:
        return (np.inf if one.closest is None else one.closest.margin, one.draw)

    return [one.clip_id for one in sorted(candidates, key=key)]


def _concepts_in_turn(candidates: Sequence[Candidate]) -> list[str]:
    """One clip of each concept, then a second one of each, and so on; large concepts go on last."""
    members: Mapping[int | None, list[Candidate]] = defaultdict(list)
    for one in candidates:
        members[one.cluster].append(one)
    turns: list[tuple[int, str, str]] = []
    for group in members.values():
        ordered = sorted(group, key=lambda one: one.draw)
        turns.extend((turn, one.draw, one.clip_id) for turn, one in enumerate(ordered))
    return [clip_id for _, _, clip_id in sorted(turns)]


def _margins(numbers: NDArray[np.float64], rule: Rule) -> NDArray[np.float64]:
    """Distance from the limit in spreads of the score; infinite where there is no number."""
    known = numbers[np.isfinite(numbers)]
    if not known.size:
        return np.full(numbers.shape, np.inf)
    low, high = np.percentile(known, (25, 75))
    spread = float(high - low) or float(np.ptp(known)) or abs(rule.value) or 1.0
    return np.nan_to_num(np.abs(numbers - rule.value) / spread, nan=np.inf)
