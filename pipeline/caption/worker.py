"""Captions a part of clips: a row of the `captions` table for each, with a caption or a reason."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.arrow import score_schema
from pipeline.caption.backend import CaptionBackend, CaptionRequest, request_for
from pipeline.caption.config import CAPTION_VERSION, CaptionConfig
from pipeline.caption.frames import caption_frames
from pipeline.caption.measured import MeasuredBackend, measured_caption
from pipeline.engine.work import Part, PartReport
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError, to_failure
from pipeline.storage import Store
from pipeline.tables import Table, part_key
from pipeline.tier.records import ClipRecord
from pipeline.tier.scores import NUMBER_FIELDS
from schemas.base import fingerprint
from schemas.caption import VLM_FIELDS, StructuredCaption
from schemas.status import Failure

STEP = "captions"
_NO_FRAMES = np.empty((0, 0, 0, 3), dtype=np.uint8)


def caption_fingerprint(config: CaptionConfig, tables: Mapping[str, str]) -> str:
    """Changes with the captioner, its config and the scores that it speaks from.

    Not with the pool: when sources come or go, the captions of the others stay.
    """
    scores = {stage: tables[stage] for stage in NUMBER_FIELDS if stage in tables}
    return fingerprint(CAPTION_VERSION, config, scores)


def caption_table(store: Store, table_fingerprint: str) -> Table:
    return Table(store, STEP, table_fingerprint, score_schema(StructuredCaption))


def caption_parts(records: Collection[ClipRecord], done: set[str], size: int) -> Iterator[Part]:
    """Parts of the clips that no finished part holds, in the order of their ids."""
    todo = [record for record in records if record.clip.clip_id not in done]
    todo.sort(key=lambda record: record.clip.clip_id)
    for first in range(0, len(todo), size):
        items = tuple(todo[first : first + size])
        yield Part(part_key(item.clip.clip_id for item in items), items)


class CaptionWorker:
    """Part of ClipRecords -> rows. What was measured is added to what the backend wrote."""

    def __init__(
        self,
        output: str,
        table_fingerprint: str,
        config: CaptionConfig,
        limits: MediaLimits,
        *,
        make_backend: Callable[[], CaptionBackend] = MeasuredBackend,
    ) -> None:
        self.table = caption_table(Store(output), table_fingerprint)
        self.config = config
        self.limits = limits
        self.backend = make_backend()

    def setup(self) -> None:
        self.backend.setup()

    def process(self, payload: Part) -> PartReport:
        started = time.monotonic()
        records: Sequence[ClipRecord] = payload.items
        results = self._describe(records)
        rows = [
            caption_row(record.clip.clip_id, self._complete(record, result))
            for record, result in zip(records, results, strict=True)
        ]
        seconds = time.monotonic() - started
        self.table.write_part(payload.key, rows, seconds=seconds)
        failed = Counter(r.error_class for r in results if isinstance(r, Failure))
        return PartReport(len(rows) - failed.total(), failed.total(), seconds, failed)

    def _describe(self, records: Sequence[ClipRecord]) -> list[StructuredCaption | Failure]:
        requests = [self._request(record) for record in records]
        usable = [request for request in requests if isinstance(request, CaptionRequest)]
        answers = iter(self.backend.describe(usable) if usable else ())
        return [r if isinstance(r, Failure) else next(answers) for r in requests]

    def _request(self, record: ClipRecord) -> CaptionRequest | Failure:
        if self.backend.num_frames == 0:
            return request_for(record.clip.clip_id, _NO_FRAMES)
        try:
            frames_THWC = caption_frames(record, self.backend.num_frames, self.limits)
        except MediaError as error:
            return to_failure(error)
        return request_for(record.clip.clip_id, frames_THWC)

    def _complete(
        self, record: ClipRecord, written: StructuredCaption | Failure
    ) -> StructuredCaption | Failure:
        if isinstance(written, Failure):
            return written
        words = {name: getattr(written, name) for name in VLM_FIELDS}
        measured = measured_caption(record, self.config).model_dump()
        return StructuredCaption.model_validate(measured | words | {"captioner": written.captioner})


def caption_row(clip_id: str, result: StructuredCaption | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"clip_id": clip_id, "ok": False, **result.model_dump()}
    return {"clip_id": clip_id, "ok": True, **result.model_dump(mode="json")}


def record_caption_failure(table: Table, part: Part, failure: Failure) -> PartReport:
    """The failed row of a clip whose captioner died twice."""
    (record,) = part.items
    table.write_part(part.key, [caption_row(record.clip.clip_id, failure)], seconds=0.0)
    return PartReport(0, 1, 0.0, {failure.error_class: 1})
