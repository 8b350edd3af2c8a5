"""The desk itself: what the page may ask, without HTTP. Many threads ask; one lock."""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np

from pipeline.caption.worker import caption_table
from pipeline.config import PipelineConfig
from pipeline.pack.inspect import score_values
from pipeline.pack.manifest import manifest_path, read_manifest
from pipeline.review.agreement import agreements
from pipeline.review.assignment import Assignment
from pipeline.review.clips import ClipSource, ShardClips, SpanClips
from pipeline.review.config import ReviewConfig
from pipeline.review.errors import ReviewError
from pipeline.review.judgement import CRITERIA, Judgement, JudgementError, parse_judgement
from pipeline.review.log import JudgementLog, counted
from pipeline.review.order import ORDERS, Candidate, Order, closest_limits, in_order
from pipeline.review.verdict import clip_verdicts
from pipeline.storage import Store
from pipeline.tier.config import TierConfig
from pipeline.tier.join import load_joined
from pipeline.tier.rules import Candidates, columns_for, decide
from schemas.caption import VLM_FIELDS
from schemas.scores import CameraMovement
from schemas.tier import TierName

logger = logging.getLogger(__name__)

_MAX_LOOSE = 500  # judgements in files of their own, before they are put into one
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


class UnknownClipIdError(KeyError):
    """The tier has no clip of this id."""


@dataclass
class Desk:
    """One tier of one output, and the judgements on it."""

    tier: TierName
    limits: TierConfig
    config: ReviewConfig
    clips: ClipSource
    candidates: Mapping[str, Candidate]
    log: JudgementLog
    assignment: Assignment
    _orders: dict[tuple[Order, int | None], list[str]] = field(default_factory=dict)
    _last_time: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(
        cls, store: Store, tables: Mapping[str, str], config: PipelineConfig, tier: TierName
    ) -> Self:
        """Raises ReviewError where the tier holds no clip."""
        log = JudgementLog(store)
        if log.num_loose() > _MAX_LOOSE:
            log.compact()
        columns = {*columns_for(config.tiers, tier), "cluster"}
        joined = load_joined(store, tables, sorted(columns))
        candidates = Candidates(joined)
        decisions = decide(candidates, config.tiers, tier)
        clips: ClipSource
        if store.exists(manifest_path(tier)):
            clips = ShardClips(store, read_manifest(store, manifest_path(tier)))
        else:
            captions = tables.get("captions")
            clips = SpanClips(
                store,
                tables,
                joined,
                decisions,
                captions=None if captions is None else caption_table(store, captions),
                caption_config=config.caption,
                limits=config.media,
            )
        clip_ids = clips.clip_ids
        if not clip_ids:
            raise ReviewError(
                f"{store.location}: {tier} holds no clip; choose a lower --tier, or loosen its "
                "limits and run again"
            )
        wanted = set(clip_ids)
        rows = np.flatnonzero([key in wanted for key in joined["clip_id"].to_pylist()])
        closest = closest_limits(candidates.take(rows), config.tiers[tier])
        chosen = joined.select(["clip_id", "cluster"]).take(rows).to_pylist()
        known = {
            row["clip_id"]: Candidate(row["clip_id"], row["cluster"], limit)
            for row, limit in zip(chosen, closest, strict=True)
        }
        return cls(
            tier=tier,
            limits=config.tiers[tier],
            config=config.review,
            clips=clips,
            candidates={key: known.get(key, Candidate(key, None, None)) for key in clip_ids},
            log=log,
            assignment=Assignment(config.review),
        )

    def setup(self) -> dict[str, Any]:
        """What the page needs to know once."""
        sizes = Counter(one.cluster for one in self.candidates.values())
        return {
            "tier": self.tier,
            "num_clips": len(self.candidates),
            "criteria": CRITERIA,
            "caption_fields": VLM_FIELDS,
            "camera_movements": CameraMovement.__args__,  # type: ignore[attr-defined]
            "orders": ORDERS,
            "clusters": [
                {"cluster": cluster, "num_clips": count}
                for cluster, count in sizes.most_common()
                if cluster is not None
            ],
        }

    def queue(
        self, reviewer: str, order: Order, count: int, cluster: int | None
    ) -> list[dict[str, Any]]:
        """The next clips for this reviewer."""
        with self._lock:
            judged_by: dict[str, set[str]] = defaultdict(set)
            for one in counted(self.log.read()):
                judged_by[one.clip_id].add(one.reviewer)
            ordered = self._ordered(order, cluster)
            chosen = self.assignment.next(reviewer, ordered, judged_by, count)
        return [self._told(clip_id, None) for clip_id in chosen]

    def clip(self, clip_id: str, reviewer: str) -> dict[str, Any]:
        """Everything about one clip, with what this reviewer said about it; never the others."""
        own = [
            one
            for one in counted(self.judgements())
            if (one.clip_id, one.reviewer) == (clip_id, reviewer)
        ]
        return self._told(clip_id, own[-1] if own else None)

    def candidate(self, clip_id: str) -> Candidate:
        """Raises UnknownClipIdError."""
        if clip_id not in self.candidates:
            raise UnknownClipIdError(clip_id)
        return self.candidates[clip_id]

    def judge(self, values: Mapping[str, Any]) -> Judgement:
        """Write one judgement down. Raises JudgementError; returns once it is on disk."""
        with self._lock:
            judgement = parse_judgement({**values, "tier": self.tier, "time": self._now()})
            if judgement.clip_id not in self.candidates:
                raise JudgementError(f"clip_id: {self.tier} has no clip {judgement.clip_id}")
            self.log.add(judgement)
            self.assignment.release(judgement.clip_id, judgement.reviewer)
        return judgement

    def history(self, reviewer: str, count: int) -> list[dict[str, Any]]:
        """The reviewer's last judgements that count, newest first."""
        own = [one for one in counted(self.judgements()) if one.reviewer == reviewer]
        return [one.model_dump(mode="json") for one in reversed(own[-count:])]

    def progress(self) -> dict[str, Any]:
        """How far all have come, and how far they agree."""
        with self._lock:
            judgements = self.log.read()
        here = [one for one in judgements if one.clip_id in self.candidates]
        last = counted(here)
        judged = Counter(one.clip_id for one in last)
        wanted = {key: self.assignment.wanted(key) for key in self.candidates}
        verdicts = clip_verdicts(here, self.config).values()
        by_reviewer: dict[str, Counter[str]] = defaultdict(Counter)
        for one in last:
            by_reviewer[one.reviewer][one.verdict] += 1
        return {
            "num_clips": len(self.candidates),
            "num_judged": len(judged),
            "num_wanted": sum(wanted.values()),
            "num_done": sum(min(judged[key], count) for key, count in wanted.items()),
            "num_approved": sum(verdict.approved for verdict in verdicts),
            "subsets": sorted({name for one in last for name in one.subsets}),
            "reviewers": [
                {"reviewer": name, "approve": counts["approve"], "reject": counts["reject"]}
                for name, counts in sorted(by_reviewer.items())
            ],
            "agreements": [one.model_dump(mode="json") for one in agreements(here)],
        }

    def judgements(self) -> Sequence[Judgement]:
        with self._lock:
            return self.log.read()

    def _told(self, clip_id: str, own: Judgement | None) -> dict[str, Any]:
        candidate = self.candidate(clip_id)
        sample = self.clips.sample(clip_id)
        return {
            "clip_id": clip_id,
            "media_kind": sample.media_kind,
            "num_frames": sample.num_frames,
            "fps": sample.fps,
            "height": sample.height,
            "width": sample.width,
            "source": sample.source_uri.rpartition("/")[2],
            "start_s": sample.start_s,
            "end_s": sample.end_s,
            "cluster": candidate.cluster,
            "closest": None if candidate.closest is None else candidate.closest.model_dump(),
            "caption": sample.caption.model_dump(mode="json"),
            "scores": [
                self._score_line(path, value) for path, value in score_values(sample.scores)
            ],
            "own": None if own is None else own.model_dump(mode="json"),
        }

    def _ordered(self, order: Order, cluster: int | None) -> list[str]:
        key = (order, cluster)
        if key not in self._orders:
            members = [
                one for one in self.candidates.values() if cluster is None or one.cluster == cluster
            ]
            self._orders[key] = in_order(members, order)
        return self._orders[key]

    def _score_line(self, path: str, value: float) -> dict[str, Any]:
        stage, _, name = path.partition(".")
        limit = self.limits.limits.get(stage, {}).get(name)
        low, high = (None, None) if limit is None else (limit.min, limit.max)
        return {"score": path, "value": value, "min": low, "max": high}

    def _now(self) -> str:
        """UTC, and later than any time given before."""
        now = datetime.now(UTC)
        text = now.strftime(_TIME_FORMAT)
        if text <= self._last_time:
            last = datetime.strptime(self._last_time, _TIME_FORMAT)
            text = (last + last.resolution).strftime(_TIME_FORMAT)
        self._last_time = text
        return text
