"""Describes a part of clips with a model: a row of the `descriptions` table for each.

Every answer is matched by the tag of its request; a clip is written when all its windows have come
to an end. When the model is lost, the finished clips are written and the run stops there.
"""

import logging
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.caption.backend import CaptionBackend, CaptionerError, Described, WindowRequest
from pipeline.caption.config import CaptionConfig
from pipeline.caption.description import description_row, descriptions_table, failed_row
from pipeline.caption.frames import window_requests
from pipeline.engine.errors import HaltError
from pipeline.engine.work import Part, PartReport
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError, to_failure
from pipeline.storage import Store
from pipeline.tables import Table, part_key
from pipeline.tier.records import ClipRecord
from schemas.status import Failure

logger = logging.getLogger(__name__)


def make_backend(config: CaptionConfig) -> CaptionBackend:
    """The backend that the config names. Loads nothing yet."""
    if config.captioner == "endpoint":
        from pipeline.caption.endpoint import EndpointBackend

        return EndpointBackend(config.vlm, config.endpoint)
    if config.captioner == "transformers":
        from pipeline.caption.local_model import TransformersBackend

        return TransformersBackend(config.vlm, config.transformers)
    raise ValueError(f"captioner {config.captioner!r} looks at nothing")


class DescribeWorker:
    """Part of ClipRecords -> rows of `descriptions`."""

    def __init__(
        self, output: str, table_fingerprint: str, config: CaptionConfig, limits: MediaLimits
    ) -> None:
        self.table = descriptions_table(Store(output), table_fingerprint)
        self.config = config
        self.limits = limits
        self.backend = make_backend(config)
        weakref.finalize(self, self.backend.close)

    def setup(self) -> None:
        try:
            self.backend.setup()
        except CaptionerError as error:
            raise HaltError(str(error)) from error

    def process(self, payload: Part) -> PartReport:
        """Raises HaltError when the model is lost."""
        started = time.monotonic()
        work = _PartOfClips(payload.items, self.config, self.limits)
        try:
            for described in self.backend.describe(work.requests()):
                work.take(described)
        except CaptionerError as error:
            rows = work.finished_rows()
            if rows:
                key = part_key(row["clip_id"] for row in rows)
                self.table.write_part(key, rows, seconds=time.monotonic() - started)
            left = len(payload.items) - len(rows)
            raise HaltError(
                f"{error}; {len(rows)} clips of this part are kept, {left} are left"
            ) from error
        rows = work.finished_rows()
        assert len(rows) == len(payload.items), "a backend answers every request"
        seconds = time.monotonic() - started
        self.table.write_part(payload.key, rows, seconds=seconds)
        failed = Counter(row["error_class"] for row in rows if not row["ok"])
        return PartReport(len(rows) - failed.total(), failed.total(), seconds, failed)


class _PartOfClips:
    """What has come in for each clip of a part."""

    def __init__(
        self, records: Sequence[ClipRecord], config: CaptionConfig, limits: MediaLimits
    ) -> None:
        self._records = records
        self._config = config
        self._limits = limits
        self._windows: dict[str, list[Described | None]] = {}
        self._tags: dict[str, tuple[str, int]] = {}  # tag -> clip and place of its window
        self._failures: dict[str, Failure] = {}

    def requests(self) -> Iterator[WindowRequest]:
        """Decodes clip after clip, as the backend asks for more."""
        for record in self._records:
            clip_id = record.clip.clip_id
            try:
                found = window_requests(record, self._config.vlm.frames, self._limits)
            except MediaError as error:
                self._failures[clip_id] = to_failure(error)
                continue
            self._windows[clip_id] = [None] * len(found)
            for request in found:
                self._tags[request.tag] = (clip_id, request.place)
            yield from found

    def take(self, described: Described) -> None:
        """By the tag alone: the order in which answers come means nothing."""
        clip_id, place = self._tags[described.request.tag]
        self._windows[clip_id][place] = described

    def finished_rows(self) -> list[dict[str, Any]]:
        """Rows of the clips of which nothing is missing, in the order of the part."""
        rows = []
        for record in self._records:
            clip_id = record.clip.clip_id
            if clip_id in self._failures:
                rows.append(failed_row(clip_id, self._failures[clip_id]))
                continue
            windows = self._windows.get(clip_id, [None])
            complete = [window for window in windows if window is not None]
            if len(complete) == len(windows):
                rows.append(description_row(clip_id, complete, self._config))
        return rows


def record_description_failure(table: Table, part: Part, failure: Failure) -> PartReport:
    """The failed row of a clip on which the worker died twice."""
    (record,) = part.items
    table.write_part(part.key, [failed_row(record.clip.clip_id, failure)], seconds=0.0)
    return PartReport(0, 1, 0.0, {failure.error_class: 1})
