"""Packs one planned shard per part. A shard's content is its plan without the clips that failed.

Items are clips, so that the engine can take a part apart when it kills its worker. A part that
lacks some of its shard's clips is such a piece: it is only tried, and what dies twice is recorded
as given up. The next round then writes the shard without it.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2

from pipeline.engine.work import Part, PartReport
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError, to_failure
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_job
from pipeline.pack.job import PackJob
from pipeline.pack.plan import PlannedShard, ShardPlan, read_jobs
from pipeline.pack.report import (
    PackRow,
    ShardRow,
    given_up,
    given_up_table,
    pack_table,
    shard_table,
    unfinished,
)
from pipeline.pack.shard import (
    ShardWriter,
    index_bytes,
    shard_entry,
    shard_is_there,
)
from pipeline.part_report import find_part_report
from pipeline.storage import Store
from schemas.shard import IndexRow, ShardEntry
from schemas.status import Failure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackItem:
    """One clip of a planned shard; the job itself lies in the plan's table."""

    shard: PlannedShard
    clip_id: str


def pack_parts(store: Store, plan: ShardPlan) -> Iterator[Part]:
    """A part for each shard that is not finished."""
    for shard in unfinished(store, plan):
        items = tuple(PackItem(shard, clip_id) for clip_id in shard.clip_ids)
        yield Part(shard.name, items)


class PackWorker:
    """Part of PackItems of one shard -> tar, index, and rows in `pack` and `pack_shards`.

    `num_at_once` clips are encoded side by side, one thread each, and written in their order: one
    shard is all that a small bucket has, and would keep a single core busy.
    """

    def __init__(
        self,
        output: str,
        plan: str,
        config: EncodeConfig,
        limits: MediaLimits,
        *,
        num_at_once: int = 1,
    ) -> None:
        self.store = Store(output)
        self.plan = plan
        self.config = config
        self.limits = limits
        self.num_at_once = num_at_once

    def setup(self) -> None:
        cv2.setNumThreads(1)

    def process(self, payload: Part) -> PartReport:
        started = time.monotonic()
        shard: PlannedShard = payload.items[0].shard
        chosen = {item.clip_id for item in payload.items}
        failures = given_up(self.store, self.plan, shard.clip_ids)
        jobs = [
            job
            for job in read_jobs(self.store, self.plan, shard.name)
            if job.sample.clip_id in chosen and job.sample.clip_id not in failures
        ]
        if chosen != set(shard.clip_ids):
            return self._try(jobs, started)
        entry, rows = self._write(shard, jobs, failures)
        seconds = time.monotonic() - started
        self._report(shard, entry, rows, failures, seconds)
        reasons = Counter(failure.error_class for failure in failures.values())
        return PartReport(len(rows), len(failures), seconds, reasons)

    def _encode(self, job: PackJob) -> bytes | Failure:
        try:
            return encode_job(job, self.config, self.limits)
        except MediaError as error:
            return to_failure(error)

    def _encode_in_order(
        self, jobs: Sequence[PackJob]
    ) -> Iterator[tuple[PackJob, bytes | Failure]]:
        pending: deque[tuple[PackJob, Future[bytes | Failure]]] = deque()
        with ThreadPoolExecutor(self.num_at_once, thread_name_prefix="encode") as pool:
            for job in jobs:
                pending.append((job, pool.submit(self._encode, job)))
                if len(pending) > self.num_at_once:
                    first, media = pending.popleft()
                    yield first, media.result()
            for first, media in pending:
                yield first, media.result()

    def _try(self, jobs: list[PackJob], started: float) -> PartReport:
        reasons: Counter[str] = Counter()
        for job in jobs:
            result = self._encode(job)
            if isinstance(result, Failure):
                reasons[result.error_class] += 1
        seconds = time.monotonic() - started
        return PartReport(len(jobs) - reasons.total(), reasons.total(), seconds, reasons)

    def _write(
        self, shard: PlannedShard, jobs: list[PackJob], failures: dict[str, Failure]
    ) -> tuple[ShardEntry | None, list[IndexRow]]:
        """Write the shard's files; clips that fail now are added to `failures`."""
        with self.store.replacing(shard.tar_path) as path:
            with path.open("wb") as file:
                writer = ShardWriter(file, shard.bucket)
                for job, media in self._encode_in_order(jobs):
                    if isinstance(media, Failure):
                        failures[job.sample.clip_id] = media
                    else:
                        writer.add(job.sample, media)
                writer.close()
            index = index_bytes(writer.rows)
            entry = shard_entry(shard, writer.rows, path, index) if writer.rows else None
        if entry is None:
            self.store.remove(shard.tar_path)
        else:
            self.store.write_bytes(shard.index_path, index)
        return entry, writer.rows

    def _report(
        self,
        shard: PlannedShard,
        entry: ShardEntry | None,
        rows: list[IndexRow],
        failures: dict[str, Failure],
        seconds: float,
    ) -> None:
        clip_rows = [
            PackRow(clip_id=clip_id, shard=shard.name, **_status(failures.get(clip_id)))
            for clip_id in shard.clip_ids
        ]
        pack_table(self.store, self.plan).write_part(shard.name, clip_rows, seconds=seconds)
        shard_row = ShardRow(
            shard=shard.name,
            entry=entry,
            num_frames=sum(row.num_frames for row in rows),
            duration_s=sum(row.num_frames / row.fps for row in rows if row.fps),
        )
        shard_table(self.store, self.plan).write_part(shard.name, [shard_row], seconds=seconds)


def record_pack_failure(store: Store, plan: str, part: Part, failure: Failure) -> PartReport:
    """Give up one clip that twice took its worker down. Its shard is written in the next round."""
    (item,) = part.items
    row = PackRow(clip_id=item.clip_id, shard=item.shard.name, **_status(failure))
    given_up_table(store, plan).write_part(item.clip_id, [row], seconds=0.0)
    logger.warning("clip %s is given up: %s", item.clip_id, failure.error)
    return PartReport(0, 1, 0.0, {failure.error_class: 1})


def find_pack_report(store: Store, plan: str, part: Part) -> PartReport | None:
    """What a finished shard holds; None for one that is not there, and for a piece of one."""
    shard: PlannedShard = part.items[0].shard
    shards = shard_table(store, plan)
    if part.key != shard.name or not shards.is_done(shard.name):
        return None
    (row,) = shards.read(keys=[shard.name]).to_pylist()
    if not shard_is_there(store, shard, ShardRow.model_validate(row).entry):
        return None
    return find_part_report(pack_table(store, plan), part)


def _status(failure: Failure | None) -> dict[str, bool | str]:
    return {"ok": True} if failure is None else {"ok": False, **failure.model_dump()}
