"""From verdicts and captions to the jobs of a tier: what is packed, and who has no caption."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.pack.job import PackJob, crop_of, pack_job
from pipeline.tables import Table
from pipeline.tier.records import ClipRecord
from pipeline.tier.rules import Decisions
from schemas.caption import StructuredCaption

_STATUS = ("clip_id", "ok", "error_class", "error")


def selected_clip_ids(joined: pa.Table, decisions: Decisions) -> list[str]:
    """Clips that passed, sorted."""
    return sorted(
        str(clip_id) for clip_id in joined["clip_id"].filter(pa.array(decisions.passed)).to_pylist()
    )


def read_captions(table: Table) -> dict[str, StructuredCaption]:
    """Captions by clip id; a clip whose captioning failed is absent."""
    rows = table.read().to_pylist()
    return {
        row["clip_id"]: StructuredCaption.model_validate(
            {name: value for name, value in row.items() if name not in _STATUS}
        )
        for row in rows
        if row["ok"]
    }


@dataclass(frozen=True, slots=True)
class Selection:
    """`num_without_caption` is the funnel's `no_caption`."""

    jobs: tuple[PackJob, ...]
    num_without_caption: int


def select_jobs(
    joined: pa.Table,
    decisions: Decisions,
    records: Iterable[ClipRecord],
    captions: Mapping[str, StructuredCaption],
) -> Selection:
    """Jobs of the clips that passed. `records` are those of exactly these clips.

    Source tags are taken from the records: they may change without a new caption.
    """
    rows = np.flatnonzero(decisions.passed)
    row_of = dict(zip(joined["clip_id"].take(rows).to_pylist(), rows.tolist(), strict=True))
    jobs, num_without = [], 0
    for record in records:
        caption = captions.get(record.clip.clip_id)
        if caption is None:
            num_without += 1
            continue
        caption = caption.model_copy(update={"source_tags": record.provenance.tags})
        row = row_of[record.clip.clip_id]
        bucket, crop_px = decisions.bucket_of(row), crop_of(decisions, row)
        jobs.append(pack_job(record, caption, decisions.tier, bucket, crop_px))
    return Selection(tuple(jobs), num_without)
