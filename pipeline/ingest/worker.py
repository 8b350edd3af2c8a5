"""Hashes and probes a part of the listed entries and writes its rows to the `ingest` table."""

import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from pipeline.engine.work import Part, PartReport, Pass, WorkerSpec
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.entry import ListedEntry
from pipeline.ingest.table import STEP, IngestRow, failed_row, ingest_table
from pipeline.media.errors import MediaError, to_failure
from pipeline.media.fetch import local_path
from pipeline.media.probe import probe_media
from pipeline.part_report import find_part_report
from pipeline.parts import cut_into_parts
from pipeline.stage import Resources
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.source import Probe
from schemas.status import Failure

_BLOCK_BYTES = 1 << 20
_MAX_KNOWN_PROBES = 10_000
_ITEM_TIMEOUT_S = 900.0  # reading 64 GiB at 100 MB/s takes 11 minutes


class IngestWorker:
    """First and last of its chain: Part of ListedEntry in, PartReport out."""

    def __init__(self, output: str, config: IngestConfig) -> None:
        self._output = output
        self._config = config

    def setup(self) -> None:
        self._table = ingest_table(Store(self._output), self._config)
        # Equal bytes are probed once: the hash tells before anything is opened as a medium.
        self._probes: OrderedDict[str, Probe] = OrderedDict()

    def process(self, part: Part) -> PartReport:
        start_s = time.perf_counter()
        rows = [self.ingest(entry) for entry in part.items]
        return _write(self._table, part.key, rows, time.perf_counter() - start_s)

    def ingest(self, entry: ListedEntry) -> IngestRow:
        """The row of one entry; what is wrong with it becomes a failed row."""
        sha256: str | None = None
        try:
            with local_path(entry.source_uri, self._config.limits) as path:
                sha256, num_bytes = _hash(path, entry)
            probe = self._probe(entry.source_uri, sha256)
        except MediaError as error:
            return failed_row(entry, to_failure(error), sha256=sha256)
        return IngestRow(
            item_id=entry.item_id,
            source_uri=entry.source_uri,
            listing_id=entry.listing_id,
            num_bytes=num_bytes,
            sha256=sha256,
            probe=probe,
        )

    def _probe(self, uri: str, sha256: str) -> Probe:
        probe = self._probes.get(sha256)
        if probe is None:
            probe = probe_media(uri, self._config.limits)
            self._probes[sha256] = probe
            if len(self._probes) > _MAX_KNOWN_PROBES:
                self._probes.popitem(last=False)
        return probe


def ingest_pass(entries: Iterable[ListedEntry], store: Store, config: IngestConfig) -> Pass:
    """The pass over all listed entries that no finished part holds yet."""
    table = ingest_table(store, config)
    done = table.done_items("item_id")
    left = [e for e in entries if e.failure is None and e.item_id not in done]
    parts = cut_into_parts(left, item_id=_item_id, max_items=config.sources_per_part)
    factory: Callable[[], IngestWorker] = partial(IngestWorker, store.location, config)
    return Pass(
        name=STEP,
        parts=parts,
        workers=(WorkerSpec(factory=factory, resources=Resources()),),
        record_failure=partial(_record_failure, table),
        find_report=partial(find_part_report, table),
        item_timeout_s=_ITEM_TIMEOUT_S,
    )


def _item_id(entry: ListedEntry) -> str:
    return entry.item_id


def _record_failure(table: Table, part: Part, failure: Failure) -> PartReport:
    return _write(table, part.key, [failed_row(entry, failure) for entry in part.items], 0.0)


def _write(table: Table, key: str, rows: Sequence[IngestRow], seconds: float) -> PartReport:
    table.write_part(key, rows, seconds=seconds)
    reasons = Counter(row.error_class for row in rows if row.error_class is not None)
    num_failed = sum(reasons.values())
    return PartReport(
        num_ok=len(rows) - num_failed, num_failed=num_failed, seconds=seconds, reasons=reasons
    )


def _hash(path: Path, entry: ListedEntry) -> tuple[str, int]:
    digest = hashlib.sha256()
    num_bytes = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                num_bytes += len(block)
    except OSError as error:
        raise MediaError("unreadable", f"{entry.source_uri}: {error.strerror}") from error
    if entry.num_bytes is not None and num_bytes != entry.num_bytes:
        raise MediaError(
            "changed",
            f"{entry.source_uri}: {num_bytes} bytes read, {entry.num_bytes} when it was listed",
        )
    return digest.hexdigest(), num_bytes
