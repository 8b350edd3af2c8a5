"""Everything that decided about one clip: each number beside each tier's limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import compute

from pipeline.storage import Store
from pipeline.tier.config import TiersConfig
from pipeline.tier.join import load_joined
from pipeline.tier.rules import Candidates, decide
from pipeline.tier.scores import SCORE_PATHS
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, Bucket, TierName

pc: Any = compute  # its stubs do not know chunked columns


class UnknownClipError(ValueError):
    """No clip of the present pool has this id."""


@dataclass(frozen=True, slots=True)
class TierVerdict:
    """`reason` is the first rule that failed, None where the clip passed into `bucket`."""

    tier: TierName
    reason: str | None
    bucket: Bucket | None


@dataclass(frozen=True, slots=True)
class LimitLine:
    """A number and, per tier, the range that it must lie in; `failing` names the tiers it fails."""

    score: str
    value: float | None  # None: the stage has no result for this clip
    limits: Mapping[TierName, tuple[float | None, float | None]]
    failing: tuple[TierName, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    clip_id: str
    source_uri: str
    start_s: float
    end_s: float
    fps: float | None
    width: int
    height: int
    error_class: str | None
    duplicate_of: str | None
    similarity: float | None
    verdicts: tuple[TierVerdict, ...]
    scores: tuple[LimitLine, ...]


def explain_clip(
    store: Store, tables: Mapping[str, str], config: TiersConfig, clip_id: str
) -> Explanation:
    """Why a clip is in its tiers and not in the others. Raises UnknownClipError."""
    joined = load_joined(store, tables)
    found = joined.filter(pc.equal(joined["clip_id"], pa.scalar(clip_id)))
    if found.num_rows == 0:
        raise UnknownClipError(f"no clip {clip_id!r} among {joined.num_rows} clips")
    return explain_row(found, config)


def explain_row(joined: pa.Table, config: TiersConfig) -> Explanation:
    """The same for a joined table of one row."""
    (row,) = joined.to_pylist()
    tiers: tuple[TierName, ...] = VIDEO_TIERS if row["media_kind"] == "video" else IMAGE_TIERS
    verdicts = tuple(_verdict(joined, config, tier) for tier in tiers)
    lines = (_line(score, row[score], config, tiers) for score in SCORE_PATHS)
    return Explanation(
        clip_id=row["clip_id"],
        source_uri=row["source_uri"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        fps=row["fps"],
        width=row["width"],
        height=row["height"],
        error_class=row["error_class"],
        duplicate_of=row["duplicate_of"],
        similarity=row["similarity"],
        verdicts=verdicts,
        scores=tuple(line for line in lines if line.value is not None or line.limits),
    )


def _verdict(joined: pa.Table, config: TiersConfig, tier: TierName) -> TierVerdict:
    decisions = decide(Candidates(joined), config, tier)
    reason = decisions.reason_of(0)
    return TierVerdict(tier, reason, None if reason else decisions.bucket_of(0))


def _line(
    score: str, value: float | None, config: TiersConfig, tiers: tuple[TierName, ...]
) -> LimitLine:
    stage, _, name = score.partition(".")
    limits: dict[TierName, tuple[float | None, float | None]] = {}
    failing: list[TierName] = []
    for tier in tiers:
        limit = config[tier].limits.get(stage, {}).get(name)
        if limit is None:
            continue
        limits[tier] = (limit.min, limit.max)
        too_low = value is not None and limit.min is not None and value < limit.min
        too_high = value is not None and limit.max is not None and value > limit.max
        if value is None or too_low or too_high:
            failing.append(tier)
    return LimitLine(score, value, limits, tuple(failing))
