"""The report of a run: one HTML page with everything in it, no script and no network."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import compute

from pipeline.config import PipelineConfig
from pipeline.report.edges import edges
from pipeline.report.page import (
    Report,
    failures_section,
    funnel_section,
    overview_section,
    page,
    speed_section,
)
from pipeline.report.pictures import clip_pictures
from pipeline.report.scores_page import edges_section, scores_section
from pipeline.report.sheets import clusters, clusters_section, duplicates, duplicates_section
from pipeline.report.tables import pool_totals, step_failures
from pipeline.review.verdict import read_verdicts
from pipeline.run_record import RunRecord, read_run_record
from pipeline.storage import Store
from pipeline.tier.funnel import funnel_counts
from pipeline.tier.join import load_joined
from pipeline.tier.rules import Candidates, decide
from schemas.shard import Funnel
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, TierName

pc: Any = compute  # its stubs do not know chunked columns

logger = logging.getLogger(__name__)

_MAX_PICTURES = 1200  # about 10 MB of page


def make_report(
    store: Store,
    config: PipelineConfig,
    *,
    price_per_hour: float | None = None,
    pictures: bool = True,
) -> bytes:
    """The page. Opens sources for the pictures that are not kept yet. Raises RunRecordError."""
    record = read_run_record(store)
    joined = load_joined(store, record.tables)
    tiers = _tiers(joined, record)
    all_edges = list(edges(joined, config.tiers, tiers))
    all_clusters, all_duplicates = clusters(joined), duplicates(joined)
    shown = [clip for edge in all_edges for clip, _ in (*edge.inside, *edge.outside)]
    shown += [clip for cluster in all_clusters for clip in cluster.nearest]
    shown += [clip for pair in all_duplicates for clip in (pair.kept, pair.dropped)]
    report = Report(
        record=record,
        location=store.location,
        joined=joined,
        tiers=config.tiers,
        shown_tiers=tiers,
        funnels=_funnels(joined, config, record, tiers),
        pictures=_pictures(store, joined, shown, config) if pictures else {},
    )
    verdicts = read_verdicts(store, config.review)
    sections = [
        overview_section(report, pool_totals(store, record.tables), verdicts.values()),
        funnel_section(report),
        scores_section(report),
        edges_section(report, all_edges),
        clusters_section(report, all_clusters),
        duplicates_section(report, all_duplicates),
        failures_section(step_failures(store, record.tables)),
        speed_section(report, pool_totals(store, record.tables), price_per_hour),
    ]
    return page(report, sections).encode()


def _tiers(joined: pa.Table, record: RunRecord) -> tuple[TierName, ...]:
    """The tiers that the run released; before any was, those of the media that are there."""
    if record.tiers:
        return tuple(result.tier for result in record.tiers)
    kinds = set(pc.unique(joined["media_kind"]).to_pylist())
    videos: Sequence[TierName] = VIDEO_TIERS[:-1] if "video" in kinds else ()
    images: Sequence[TierName] = IMAGE_TIERS if "image" in kinds else ()
    return (*videos, *images)


def _funnels(
    joined: pa.Table, config: PipelineConfig, record: RunRecord, tiers: Iterable[TierName]
) -> dict[TierName, Funnel]:
    """As the run counted them, else as the tables say now."""
    counted: dict[TierName, Funnel] = {result.tier: result.funnel for result in record.tiers}
    candidates = Candidates(joined)
    return {
        tier: counted.get(tier) or funnel_counts(decide(candidates, config.tiers, tier))
        for tier in tiers
    }


def _pictures(
    store: Store, joined: pa.Table, clip_ids: Sequence[str], config: PipelineConfig
) -> Mapping[str, bytes]:
    wanted = list(dict.fromkeys(clip_ids))
    if len(wanted) > _MAX_PICTURES:
        logger.warning("%d pictures are wanted, the first %d shown", len(wanted), _MAX_PICTURES)
    columns = ["clip_id", "source_uri", "media_kind", "clear_frame", "clear_s", "height", "width"]
    is_wanted = pc.is_in(joined["clip_id"], value_set=pa.array(wanted[:_MAX_PICTURES]))
    return clip_pictures(store, joined.select(columns).filter(is_wanted).to_pylist(), config.media)
