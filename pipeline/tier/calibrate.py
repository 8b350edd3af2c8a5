"""Thresholds for a wanted retention: each tier keeps a share of the one below.

All limits of a tier are moved together. At level t, 0 to 1, a minimum sits at the t-quantile of its
score among the candidates and a maximum at the (1 - t)-quantile, and no limit is looser than in
the tier below. What passes shrinks as t grows, so a search by halving finds the t whose combined
retention is nearest to the wanted one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.config_file import ConfigError
from pipeline.storage import Store
from pipeline.tier.config import Limit, Rule, TierConfig, TiersConfig, ladder
from pipeline.tier.join import load_joined
from pipeline.tier.rules import Candidates, Mask, decide, rule_results
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, TierName

_DIGITS = 6  # of a written threshold
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class TierRetention:
    """`retained` is of the clips of the tier below, for the lowest tier of all scored clips."""

    tier: TierName
    num_before: int
    num_passed: int
    wanted: float

    @property
    def retained(self) -> float:
        return self.num_passed / self.num_before if self.num_before else 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    config: TiersConfig
    tiers: tuple[TierRetention, ...]


def calibrate_tables(
    store: Store, tables: Mapping[str, str], config: TiersConfig, retain: float
) -> Calibration:
    """Thresholds from the score tables of an output."""
    return calibrate(load_joined(store, tables), config, retain)


def calibrate(joined: pa.Table, config: TiersConfig, retain: float) -> Calibration:
    """Move every limit that is not `fixed`. Tier 5 takes over tier 4: a person decides there.

    Raises ConfigError for a retention outside (0, 1].
    """
    if not 0 < retain <= 1:
        raise ConfigError(f"retain must lie above 0 and at most 1, got {retain}")
    candidates = Candidates(joined)
    retentions: list[TierRetention] = []
    for tiers in (VIDEO_TIERS[:-1], IMAGE_TIERS):
        before = _scored(candidates, config, tiers[0])
        for tier in tiers:
            config = _calibrate_tier(candidates, config, tier, before, retain)
            passed = decide(candidates, config, tier).passed
            retentions.append(TierRetention(tier, _count(before), _count(passed), retain))
            before = passed
    return Calibration(config, tuple(retentions))


def _scored(candidates: Candidates, config: TiersConfig, tier: TierName) -> Mask:
    """Clips of the right kind that were kept by the corpus step and miss no number."""
    scored = np.ones(candidates.num_rows, dtype=np.bool_)
    for result in rule_results(candidates, config, tier):
        if result.missing is not None:
            scored &= ~result.missing
        if result.reason == "duplicate" or result.reason.startswith("not_"):
            scored &= ~result.fails
    return scored


def _calibrate_tier(
    candidates: Candidates, config: TiersConfig, tier: TierName, before: Mask, retain: float
) -> TiersConfig:
    loosest = _replace_rules(config, tier, _inherited(config, tier))
    pool = before & decide(candidates, loosest, tier).passed
    free = [rule for rule in config[tier].rules if not rule.fixed]
    for rule in free:
        pool &= ~np.isnan(candidates.numbers(rule.score))
    wanted = round(retain * _count(before))
    if _count(pool) <= wanted or not free:
        return loosest  # size and length alone remove enough
    levels = _Levels(candidates, free, pool, {r.reason: r for r in loosest[tier].rules})
    low, high = 0.0, 1.0  # what passes at `low` is at least `wanted`, at `high` at most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if levels.num_passing(middle) >= wanted:
            low = middle
        else:
            high = middle
    level = min((low, high), key=lambda t: abs(levels.num_passing(t) - wanted))
    fixed = [rule for rule in loosest[tier].rules if rule.fixed]
    return _replace_rules(config, tier, [*fixed, *levels.rules(level)])


class _Levels:
    """The free rules at a level t, and how many of the pool they let through together."""

    def __init__(
        self,
        candidates: Candidates,
        free: Sequence[Rule],
        pool: Mask,
        floor: Mapping[str, Rule],
    ) -> None:
        self.free = free
        scores = [rule.score for rule in free]
        # With both ends free each takes half, so that they meet in the middle and never cross.
        self.shares = [1 / scores.count(score) for score in scores]
        self.floor = floor
        self.columns = [candidates.numbers(rule.score)[pool] for rule in free]
        self.sorted = [np.sort(column) for column in self.columns]

    def rules(self, level: float) -> list[Rule]:
        rules = []
        for rule, ordered, share in zip(self.free, self.sorted, self.shares, strict=True):
            cut = share * level
            position = cut if rule.side == "min" else 1 - cut
            value = _round(float(ordered[round(position * (len(ordered) - 1))]), rule.side)
            if rule.reason in self.floor:
                tightest = max if rule.side == "min" else min
                value = tightest(value, self.floor[rule.reason].value)
            rules.append(rule._replace(value=value))
        return rules

    def num_passing(self, level: float) -> int:
        passing = np.ones(len(self.columns[0]), dtype=np.bool_)
        for rule, column in zip(self.rules(level), self.columns, strict=True):
            passing &= column >= rule.value if rule.side == "min" else column <= rule.value
        return _count(passing)


def _inherited(config: TiersConfig, tier: TierName) -> list[Rule]:
    """The tier's fixed rules, and the free ones of the tier below."""
    rules = [rule for rule in config[tier].rules if rule.fixed]
    below = ladder(tier)[:-1]
    if below:
        known = {rule.reason for rule in rules}
        rules += [rule for rule in config[below[-1]].rules if rule.reason not in known]
    return rules


def _replace_rules(config: TiersConfig, tier: TierName, rules: Sequence[Rule]) -> TiersConfig:
    """The config with a tier of exactly these rules, and the tiers above no looser than it."""
    own = config.own(tier)
    changed = {tier: TierConfig(size=own.size, frames=own.frames, limits=_limits(rules))}
    higher = VIDEO_TIERS if tier in VIDEO_TIERS else IMAGE_TIERS
    for above in higher[higher.index(tier) + 1 :]:
        ladder_above = config.own(above)
        changed[above] = TierConfig(
            size=ladder_above.size,
            frames=ladder_above.frames,
            limits=_limits(_no_looser(config[above].rules, rules)),
        )
    tree = config.model_dump() | {name: tier.model_dump() for name, tier in changed.items()}
    return TiersConfig.model_validate(tree)


def _no_looser(rules: Sequence[Rule], floor: Sequence[Rule]) -> list[Rule]:
    values = {rule.reason: rule.value for rule in floor}
    tight = []
    for rule in rules:
        tightest = max if rule.side == "min" else min
        tight.append(rule._replace(value=tightest(rule.value, values.get(rule.reason, rule.value))))
    return tight


def _limits(rules: Sequence[Rule]) -> dict[str, dict[str, Limit]]:
    sides: dict[str, dict[str, dict[str, float | bool]]] = {}
    for rule in rules:
        stage, _, name = rule.score.partition(".")
        limit = sides.setdefault(stage, {}).setdefault(name, {})
        limit[rule.side] = rule.value
        if rule.fixed:
            limit["fixed"] = True
    return {
        stage: {name: Limit.model_validate(limit) for name, limit in fields.items()}
        for stage, fields in sides.items()
    }


def _round(value: float, side: str) -> float:
    """To a readable number of digits, never to the tight side."""
    rounded = float(f"{value:.{_DIGITS}g}")
    tighter = rounded > value if side == "min" else rounded < value
    if not tighter:
        return rounded
    step = 10.0 ** (np.floor(np.log10(abs(value))) - _DIGITS + 1)
    return float(f"{rounded + (-step if side == 'min' else step):.{_DIGITS}g}")


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
