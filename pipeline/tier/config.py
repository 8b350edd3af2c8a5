"""The only thresholds of the project: what each tier asks for. Read from one TOML file.

A tier writes down only what it tightens; the limits that it does not name it takes over from the
tier below. A file whose limits, size or frame counts loosen upward is refused, so the tiers nest.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, cast

from pydantic import ConfigDict, Field, model_validator

from pipeline.config_file import apply_overrides, merge, read_toml, validate
from pipeline.tier.scores import MOTION_STAGES, NUMBER_FIELDS, SCORE_PATHS
from schemas.base import StrictModel
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, TierName

DEFAULT_TIERS_FILE = Path(__file__).parents[1] / "configs" / "tiers.toml"

FrameCount = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16, le=16384)]
LimitSide = Literal["min", "max"]


class Limit(StrictModel):
    """What a score must reach and may not pass; both ends are inside."""

    min: float | None = None
    max: float | None = None
    fixed: bool = False  # a sanity limit: calibration leaves it as it is

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a limit needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Rule(NamedTuple):
    """One side of one limit. `reason` is also the path of the value in the config."""

    score: str  # `motion.speed`
    side: LimitSide
    value: float
    fixed: bool

    @property
    def stage(self) -> str:
        return self.score.partition(".")[0]

    @property
    def reason(self) -> str:
        return f"{self.score}.{self.side}"


class TierConfig(StrictModel):
    """One tier. `size` is height, width of its 16:9 or square bucket; only the area counts."""

    size: tuple[Side, Side]
    frames: tuple[FrameCount, ...]  # 4n+1, rising
    limits: dict[str, dict[str, Limit]] = {}  # stage -> score -> limit

    @property
    def area_px(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The sides of the limits, in the order of the score models."""
        return tuple(_rules_of(self.limits))

    @model_validator(mode="after")
    def _scores_exist(self) -> Self:
        for stage, fields in self.limits.items():
            if stage not in NUMBER_FIELDS:
                raise ValueError(f"no score stage {stage!r}; there are {', '.join(NUMBER_FIELDS)}")
            for name in fields:
                if name not in NUMBER_FIELDS[stage]:
                    known = ", ".join(NUMBER_FIELDS[stage])
                    raise ValueError(f"{stage} has no number {name!r}; it has {known}")
        return self

    @model_validator(mode="after")
    def _frames_rise(self) -> Self:
        if not self.frames or list(self.frames) != sorted(set(self.frames)):
            raise ValueError(f"frames must rise, got {self.frames}")
        if wrong := [count for count in self.frames if count % 4 != 1]:
            raise ValueError(f"frame counts must be 4n+1, got {wrong}")
        return self


class TiersConfig(StrictModel):
    """Every tier. Field names in files carry a hyphen: `[tier-3.limits.motion]`."""

    model_config = ConfigDict(serialize_by_alias=True)

    min_fps: Annotated[float, Field(gt=0)] = 16.0  # slower: `low_fps`
    # Cropping to the bucket's aspect must keep this share of the clean crop, else `aspect`.
    min_aspect_area: Annotated[float, Field(gt=0, le=1)] = 0.6
    tier_1: TierConfig = Field(alias="tier-1")
    tier_2: TierConfig = Field(alias="tier-2")
    tier_3: TierConfig = Field(alias="tier-3")
    tier_4: TierConfig = Field(alias="tier-4")
    tier_5: TierConfig = Field(alias="tier-5")  # and a person's approval
    image_1: TierConfig = Field(alias="image-1")
    image_2: TierConfig = Field(alias="image-2")

    def own(self, tier: TierName) -> TierConfig:
        """What the file says about the tier, without what it takes over."""
        return cast("TierConfig", getattr(self, tier.replace("-", "_")))

    def __getitem__(self, tier: TierName) -> TierConfig:
        """The tier with the limits that it takes over from the ones below."""
        limits: Mapping[str, Any] = {}
        for name in ladder(tier):
            limits = merge(limits, _plain_limits(self.own(name)))
        own = self.own(tier)
        return TierConfig(size=own.size, frames=own.frames, limits=cast("Any", limits))

    @model_validator(mode="after")
    def _tiers_nest(self) -> Self:
        for tiers in (VIDEO_TIERS, IMAGE_TIERS):
            for below, above in itertools.pairwise(tiers):
                _refuse_loosening(below, self[below], above, self[above])
        for tier in IMAGE_TIERS:
            if wrong := MOTION_STAGES & set(self.own(tier).limits):
                raise ValueError(f"{tier}: an image has no {' and no '.join(sorted(wrong))}")
            if self.own(tier).frames != (1,):
                raise ValueError(f"{tier}: frames must be [1], got {list(self.own(tier).frames)}")
        return self


def ladder(tier: TierName) -> tuple[TierName, ...]:
    """The tier and all below it, lowest first."""
    tiers: tuple[TierName, ...] = VIDEO_TIERS if tier in VIDEO_TIERS else IMAGE_TIERS
    return tiers[: tiers.index(tier) + 1]


def load_tiers(path: Path = DEFAULT_TIERS_FILE, overrides: Sequence[str] = ()) -> TiersConfig:
    """The tiers of a TOML file with `tier-3.limits.motion.speed.min=2` set. Raises ConfigError.

    An override may also begin with `tiers.`, as in the config of a whole run.
    """
    return validate(TiersConfig, override_tiers(read_toml(path), overrides), where=str(path))


def override_tiers(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tree of a tiers file with overrides set.

    A limit that is tightened takes the tiers above it along, where those are looser; one that is
    loosened below the tier beneath it is still refused when the tree is validated.
    """
    for override in overrides:
        plain = override.removeprefix("tiers.")
        tree = apply_overrides(tree, [plain])
        keys = plain.partition("=")[0].strip().split(".")
        if len(keys) == 5 and keys[1] == "limits" and keys[4] in ("min", "max"):
            tree = _tighten_above(tree, keys)
    return dict(tree)


def _tighten_above(tree: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    tier, _, stage, name, side = keys
    value = tree[tier]["limits"][stage][name][side]
    changed = dict(tree)
    for tiers in (VIDEO_TIERS, IMAGE_TIERS):
        names: list[str] = list(tiers)
        for above in names[names.index(tier) + 1 :] if tier in names else ():
            own = tree.get(above, {}).get("limits", {}).get(stage, {}).get(name, {}).get(side)
            if own is not None and (own < value if side == "min" else own > value):
                tighter = {above: {"limits": {stage: {name: {side: value}}}}}
                changed = merge(changed, tighter)
    return changed


def _plain_limits(tier: TierConfig) -> dict[str, Any]:
    return {
        stage: {name: limit.model_dump(exclude_unset=True) for name, limit in fields.items()}
        for stage, fields in tier.limits.items()
    }


def _rules_of(limits: Mapping[str, Mapping[str, Limit]]) -> Iterator[Rule]:
    for score in SCORE_PATHS:
        stage, _, name = score.partition(".")
        limit = limits.get(stage, {}).get(name)
        if limit is None:
            continue
        if limit.min is not None:
            yield Rule(score, "min", limit.min, limit.fixed)
        if limit.max is not None:
            yield Rule(score, "max", limit.max, limit.fixed)


def _refuse_loosening(below: str, low: TierConfig, above: str, high: TierConfig) -> None:
    if high.area_px < low.area_px:
        raise ValueError(f"{above} is smaller than {below}: {high.size} against {low.size}")
    if high.frames[0] < low.frames[0]:
        raise ValueError(
            f"{above} takes shorter clips than {below}: {high.frames[0]} frames against "
            f"{low.frames[0]}"
        )
    floor = {(rule.score, rule.side): rule.value for rule in low.rules}
    for rule in high.rules:
        value = floor.get((rule.score, rule.side), rule.value)
        if rule.value < value if rule.side == "min" else rule.value > value:
            raise ValueError(
                f"{above} loosens {rule.reason}: {rule.value} against {value} in {below}"
            )
