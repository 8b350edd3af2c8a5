"""The clips that lie closest to each limit, on either side of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.tier.config import Rule, TiersConfig
from pipeline.tier.rules import Candidates
from schemas.tier import IMAGE_TIERS, TierName

_EACH_SIDE = 8


@dataclass(frozen=True, slots=True)
class Edge:
    """One limit. `inside` and `outside`: (clip id, value), the closest to the limit first."""

    tiers: tuple[TierName, ...]  # that set this same limit
    rule: Rule
    num_inside: int
    num_outside: int
    inside: tuple[tuple[str, float], ...]
    outside: tuple[tuple[str, float], ...]


def edges(joined: pa.Table, config: TiersConfig, tiers: Sequence[TierName]) -> Iterator[Edge]:
    """Every limit of the tiers once, in the order of the scores; whatever else a clip fails."""
    candidates = Candidates(joined)
    clip_ids = joined["clip_id"].to_pylist()
    sharing: dict[tuple[str, Rule], list[TierName]] = {}
    for tier in tiers:
        kind = "image" if tier in IMAGE_TIERS else "video"
        for rule in config[tier].rules:
            sharing.setdefault((kind, rule), []).append(tier)
    for (kind, rule), names in sharing.items():
        numbers = candidates.numbers(rule.score)
        known = np.isfinite(numbers) & candidates.is_text("media_kind", kind)
        rows = np.flatnonzero(known)
        rows = rows[np.argsort(np.abs(numbers[rows] - rule.value), kind="stable")]
        fails = numbers[rows] < rule.value if rule.side == "min" else numbers[rows] > rule.value
        inside, outside = (
            tuple((str(clip_ids[row]), float(numbers[row])) for row in side[:_EACH_SIDE].tolist())
            for side in (rows[~fails], rows[fails])
        )
        num_outside = int(np.count_nonzero(fails))
        yield Edge(tuple(names), rule, len(rows) - num_outside, num_outside, inside, outside)
