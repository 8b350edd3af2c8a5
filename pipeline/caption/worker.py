"""Captions a part of clips: a row of the `captions` table for each, with a caption or a reason.

Cheap, and made anew whenever a score changes: what a model wrote comes from the `descriptions`
table, which stays.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.arrow import score_schema
from pipeline.caption.answer import Words
from pipeline.caption.config import CAPTION_VERSION, CaptionConfig
from pipeline.caption.description import captioner_name
from pipeline.caption.measured import measured_caption
from pipeline.engine.work import Part, PartReport
from pipeline.storage import Store
from pipeline.tables import Table, part_key
from pipeline.tier.records import ClipRecord
from pipeline.tier.scores import NUMBER_FIELDS
from schemas.base import fingerprint
from schemas.caption import StructuredCaption
from schemas.status import Failure

STEP = "captions"


@dataclass(frozen=True, slots=True)
class CaptionItem:
    """One clip; `written` is what a model made of it, None where no model is asked."""

    record: ClipRecord
    written: Words | Failure | None


def caption_fingerprint(
    config: CaptionConfig, tables: Mapping[str, str], descriptions: str | None
) -> str:
    """Changes with what is said by measurement, the scores behind it and the descriptions.

    Not with the pool: when sources come or go, the captions of the others stay.
    """
    scores = {stage: tables[stage] for stage in NUMBER_FIELDS if stage in tables}
    return fingerprint(CAPTION_VERSION, config.said_by_measurement(), scores, descriptions)


def caption_table(store: Store, table_fingerprint: str) -> Table:
    return Table(store, STEP, table_fingerprint, score_schema(StructuredCaption))


def clip_parts(records: Collection[ClipRecord], done: set[str], size: int) -> Iterator[Part]:
    """Parts of the clips that no finished part holds, in the order of their ids."""
    todo = [record for record in records if record.clip.clip_id not in done]
    todo.sort(key=lambda record: record.clip.clip_id)
    for first in range(0, len(todo), size):
        items = tuple(todo[first : first + size])
        yield Part(part_key(item.clip.clip_id for item in items), items)


def caption_parts(
    records: Collection[ClipRecord],
    done: set[str],
    size: int,
    *,
    descriptions: Mapping[str, Words | Failure] | None = None,
) -> Iterator[Part]:
    """The same, each clip with what `descriptions` (of all these clips) says of it."""
    for part in clip_parts(records, done, size):
        yield Part(
            part.key,
            tuple(
                CaptionItem(
                    record, None if descriptions is None else descriptions[record.clip.clip_id]
                )
                for record in part.items
            ),
        )


class CaptionWorker:
    """Part of CaptionItems -> rows. What was measured is added to what a model wrote."""

    def __init__(self, output: str, table_fingerprint: str, config: CaptionConfig) -> None:
        self.table = caption_table(Store(output), table_fingerprint)
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, payload: Part) -> PartReport:
        started = time.monotonic()
        items: tuple[CaptionItem, ...] = payload.items
        results = [complete(item, self.config) for item in items]
        rows = [
            caption_row(item.record.clip.clip_id, result)
            for item, result in zip(items, results, strict=True)
        ]
        seconds = time.monotonic() - started
        self.table.write_part(payload.key, rows, seconds=seconds)
        failed = Counter(r.error_class for r in results if isinstance(r, Failure))
        return PartReport(len(rows) - failed.total(), failed.total(), seconds, failed)


def complete(item: CaptionItem, config: CaptionConfig) -> StructuredCaption | Failure:
    """Camera movement and tags by measurement, the seven descriptions by the model."""
    if isinstance(item.written, Failure):
        return item.written
    measured = measured_caption(item.record, config)
    if item.written is None:
        return measured
    fields = measured.model_dump() | item.written.model_dump()
    return StructuredCaption.model_validate(fields | {"captioner": captioner_name(config)})


def caption_row(clip_id: str, result: StructuredCaption | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"clip_id": clip_id, "ok": False, **result.model_dump()}
    return {"clip_id": clip_id, "ok": True, **result.model_dump(mode="json")}


def record_caption_failure(table: Table, part: Part, failure: Failure) -> PartReport:
    """The failed row of a clip whose captioner died twice."""
    (item,) = part.items
    table.write_part(part.key, [caption_row(item.record.clip.clip_id, failure)], seconds=0.0)
    return PartReport(0, 1, 0.0, {failure.error_class: 1})
