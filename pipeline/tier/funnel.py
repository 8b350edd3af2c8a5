"""What one tier lets through and what each of its rules takes away, from tables alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.storage import Store
from pipeline.tier.config import TiersConfig
from pipeline.tier.join import load_joined
from pipeline.tier.rules import (
    Candidates,
    Decisions,
    Mask,
    columns_for,
    decide,
    rule_results,
    split_reasons,
)
from schemas.shard import Funnel, FunnelStep
from schemas.tier import TierName


@dataclass(frozen=True, slots=True)
class RuleCount:
    """How many clips one rule removes.

    `alone`: they fail it, whatever else they fail; `first`: they fail it before any other rule of
    the order; `only`: they fail nothing else, so that lifting it would let them in.
    """

    reason: str
    alone: int
    first: int
    only: int


@dataclass(frozen=True, slots=True)
class TierFunnel:
    tier: TierName
    num_clips: int
    num_passed: int
    rules: tuple[RuleCount, ...]
    counts: Funnel  # adds up exactly


def tier_funnel(
    store: Store, tables: Mapping[str, str], config: TiersConfig, tier: TierName
) -> TierFunnel:
    """The funnel of one tier, read from the tables; no media is touched."""
    joined = load_joined(store, tables, columns_for(config, tier))
    return count_rules(Candidates(joined), config, tier)


def count_rules(candidates: Candidates, config: TiersConfig, tier: TierName) -> TierFunnel:
    decisions = decide(candidates, config, tier)
    first = Counter(reason_counts(decisions))
    fails: dict[str, Mask] = {}
    num_failures = np.zeros(candidates.num_rows, dtype=np.int16)
    for result in rule_results(candidates, config, tier):
        num_failures += result.fails
        if result.missing is not None:
            num_failures += result.missing
        earlier = fails.get(result.reason)
        fails[result.reason] = result.fails if earlier is None else earlier | result.fails
    rules = tuple(
        RuleCount(
            reason,
            alone=int(np.count_nonzero(mask)),
            first=first[reason],
            only=int(np.count_nonzero(mask & (num_failures == 1))),
        )
        for reason, mask in fails.items()
    )
    return TierFunnel(
        tier, candidates.num_rows, decisions.num_passed, rules, funnel_counts(decisions)
    )


def reason_counts(decisions: Decisions) -> dict[str, int]:
    """First failing rule -> number of clips, for the rules that removed any."""
    counts = np.bincount(decisions.reason_codes + 1, minlength=len(decisions.reasons) + 1)
    return {reason: int(counts[code + 1]) for code, reason in enumerate(decisions.reasons)}


def funnel_counts(decisions: Decisions, later_failures: Mapping[str, int] | None = None) -> Funnel:
    """The manifest's funnel. `later_failures` (`no_caption`, `no_pack`) come off what passed."""
    counts = {reason: count for reason, count in reason_counts(decisions).items() if count}
    later = {reason: count for reason, count in (later_failures or {}).items() if count}
    rejected, failed = split_reasons(tuple(counts))
    return Funnel(
        num_clips=len(decisions.passed),
        num_packed=decisions.num_passed - sum(later.values()),
        rejected=tuple(FunnelStep(reason=r, num_clips=counts[r]) for r in rejected),
        failed=(
            *(FunnelStep(reason=r, num_clips=counts[r]) for r in failed),
            *(FunnelStep(reason=r, num_clips=count) for r, count in sorted(later.items())),
        ),
    )
