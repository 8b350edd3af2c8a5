"""The walk, in order. The only file that knows which pass follows which.

    ingest -> split -> embed -> corpus -> score -> tier -> caption -> pack

Passes before `tier` measure and drop nothing; `tier` decides from tables; only what it admits is
captioned and packed (pipeline/release.py). Each pass plans the items that no finished part holds,
so running the walk again goes on where it stopped. A source is decoded once by split and once by
embed, a clip's window once by score, and a packed clip once more.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.corpus.table import find_corpus
from pipeline.embed.worker import embed_pass, embedding_table
from pipeline.engine.work import Engine, Pass, WorkerSpec
from pipeline.ingest.entry import ListedEntry, ListingError
from pipeline.ingest.listing import list_inputs
from pipeline.ingest.sources import rows_by_item, source_rows
from pipeline.ingest.table import ingest_table
from pipeline.ingest.worker import ingest_pass
from pipeline.parts import cut_into_parts
from pipeline.release import Releaser
from pipeline.run_record import PassTiming, TierResult
from pipeline.score.tables import plan_score_parts, score_tables
from pipeline.score.worker import ScoreWorker, find_score_report, record_score_failure
from pipeline.split.tables import SplitTables, split_fingerprint
from pipeline.split.worker import SplitWorker, record_failure
from pipeline.stage import Resources
from pipeline.storage import Store
from pipeline.tier.join import CLIPS, CORPUS, SOURCES, open_table
from pipeline.used_weights import used_weights
from schemas.base import canonical_json, fingerprint
from schemas.clip import ClipRow
from schemas.source import MediaKind, SourceRow
from schemas.tier import IMAGE_TIERS, TierName

logger = logging.getLogger(__name__)

EMBEDDING = "embedding"


@dataclass
class Walk:
    """One run over one output. `tables` fills up with the fingerprints of the current tables."""

    config: PipelineConfig
    store: Store
    inputs: Sequence[str]
    exclude: frozenset[str]
    tiers: Sequence[TierName]
    tables: dict[str, str] = field(default_factory=dict)
    timings: list[PassTiming] = field(default_factory=list)
    results: list[TierResult] = field(default_factory=list)
    sources: list[SourceRow] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)

    def run(self, engine: Engine) -> None:
        """All passes. Raises EngineError, StorageError, ListingError, WeightsError."""
        self.weights.update(used_weights(self.config))
        entries = list_inputs(self.inputs)
        if not entries:
            raise ListingError(f"{', '.join(self.inputs)}: no entry bears a media suffix")
        self.ingest(engine, entries)
        clips = self.split(engine)
        self.embed(engine, clips)
        kept = self.corpus(clips)
        kinds: set[MediaKind] = {"image" if t in IMAGE_TIERS else "video" for t in self.tiers}
        self.score(engine, [clip for clip in kept if clip.media_kind in kinds])
        releaser = Releaser(self.config, self.store, self.tables, self.weights, self.run_pass)
        self.results.extend(releaser.release(engine, tier) for tier in self.tiers)

    def ingest(self, engine: Engine, entries: Sequence[ListedEntry]) -> None:
        """Hash and probe what is new; write the `sources` table of the present pool."""
        config = self.config.ingest
        self.run_pass(
            engine, ingest_pass(entries, self.store, config), num_items=num_readable(entries)
        )
        found = ingest_table(self.store, config).read()
        self.sources = source_rows(entries, rows_by_item(found), self.exclude)
        digest = _digest(canonical_json(row) for row in self.sources)
        table = open_table(self.store, SOURCES, fingerprint(SOURCES, digest))
        if digest not in table.done_keys():
            table.write_part(digest, self.sources, seconds=0.0)
        self.tables[SOURCES] = table.fingerprint

    def split(self, engine: Engine) -> list[ClipRow]:
        """Cut what is new into clips; the usable clips of the present pool, by id."""
        tables = SplitTables.at(self.store, split_fingerprint(self.config.split))
        tables.discard_unfinished()
        present = present_sources(self.sources)
        done = tables.done_sources()
        parts = cut_into_parts(
            (row for key, row in present.items() if key not in done),
            item_id=source_key,
            max_items=self.config.passes.sources_per_part,
            num_bytes=lambda row: row.num_bytes or 0,
            max_bytes=self.config.passes.source_bytes_per_part,
        )
        pass_ = Pass(
            name="split",
            parts=parts,
            workers=(
                WorkerSpec(
                    partial(SplitWorker, self.store.location, self.config.split), Resources()
                ),
            ),
            record_failure=partial(record_failure, tables),
            item_timeout_s=self.config.passes.source_timeout_s,
            find_report=tables.find_report,
        )
        self.run_pass(engine, pass_, num_items=len(present))
        self.tables[CLIPS] = tables.clips.fingerprint
        clips = {
            row["clip_id"]: ClipRow.model_validate(row)
            for row in tables.clips.read().to_pylist()
            if row["ok"] and (row["source_uri"], row["source_sha256"]) in present
        }
        return [clips[clip_id] for clip_id in sorted(clips)]

    def embed(self, engine: Engine, clips: Sequence[ClipRow]) -> None:
        config, passes = self.config, self.config.passes
        pass_ = embed_pass(
            clips,
            self.store,
            config.embed,
            config.media,
            clips_per_part=passes.clips_per_part,
            item_timeout_s=passes.item_timeout_s,
        )
        self.run_pass(engine, pass_, num_items=len(clips))
        self.tables[EMBEDDING] = embedding_table(self.store, config.embed, config.media).fingerprint

    def corpus(self, clips: Sequence[ClipRow]) -> list[ClipRow]:
        """Duplicates, concepts and weights; the clips that are no duplicate."""
        started = time.monotonic()
        embeddings = embedding_table(self.store, self.config.embed, self.config.media).read()
        result = find_corpus(self.store, clips, embeddings, self.config.corpus)
        self.tables[CORPUS] = result.table.fingerprint
        found = result.table.read(["clip_id", "duplicate_of"]).to_pylist()
        duplicates = {row["clip_id"] for row in found if row["duplicate_of"] is not None}
        self.timings.append(
            PassTiming(
                name=CORPUS,
                num_done_before=len(found) if result.was_done else 0,
                num_ok=0 if result.was_done else len(found),
                num_failed=0,
                seconds=round(time.monotonic() - started, 3),
            )
        )
        return [clip for clip in clips if clip.clip_id not in duplicates]

    def score(self, engine: Engine, clips: Sequence[ClipRow]) -> None:
        config = self.config.score
        tables = score_tables(self.store, config)
        worker = partial(ScoreWorker, self.store.location, config, self.config.media)
        pass_ = Pass(
            name="score",
            parts=plan_score_parts(clips, tables, clips_per_part=self.config.passes.clips_per_part),
            workers=(WorkerSpec(worker, Resources()),),
            record_failure=partial(record_score_failure, tables),
            item_timeout_s=self.config.passes.item_timeout_s,
            find_report=partial(find_score_report, tables),
        )
        self.run_pass(engine, pass_, num_items=len(clips))
        self.tables.update({stage: table.fingerprint for stage, table in tables.items()})

    def run_pass(self, engine: Engine, pass_: Pass, *, num_items: int) -> None:
        """Run what is left of a pass and note how it went."""
        num_left = sum(len(part.items) for part in pass_.parts)
        logger.info("%s: %d of %d items to do", pass_.name, num_left, num_items)
        timing = PassTiming(
            name=pass_.name,
            num_done_before=num_items - num_left,
            num_ok=0,
            num_failed=0,
            seconds=0.0,
        )
        if pass_.parts:
            report = engine.run(pass_)
            timing = PassTiming(
                name=pass_.name,
                num_done_before=num_items - num_left,
                num_ok=report.num_ok,
                num_failed=report.num_failed,
                seconds=round(report.seconds, 3),
                reasons=dict(report.reasons),
            )
        self.timings.append(timing)

    def record_fields(self) -> dict[str, Any]:
        """What the run's record says of the walk, as far as it got."""
        return {
            "tables": dict(self.tables),
            "weights": dict(self.weights),
            "passes": tuple(self.timings),
            "tiers": tuple(self.results),
            "num_sources": len(self.sources),
            "num_failed_sources": sum(not row.ok for row in self.sources),
        }


def num_readable(entries: Iterable[ListedEntry]) -> int:
    return sum(entry.failure is None for entry in entries)


def source_key(row: SourceRow) -> str:
    return f"{row.source_uri}\n{row.sha256}"


def present_sources(sources: Iterable[SourceRow]) -> dict[tuple[str, str], SourceRow]:
    """The sources that are decoded: ok, not excluded, the first of equal contents."""
    return {
        (row.source_uri, row.sha256): row
        for row in sources
        if row.ok and row.duplicate_of is None and row.sha256 is not None
    }


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]
