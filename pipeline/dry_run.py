"""What a run would do: from the listing and the tables alone. Nothing is opened or written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.caption.describe_pass import worker_resources
from pipeline.config import PipelineConfig
from pipeline.embed.worker import embedding_table
from pipeline.engine.work import Engine, Part, PartReport, Pass, Worker, WorkerSpec
from pipeline.ingest.listing import list_inputs
from pipeline.ingest.sources import rows_by_item, source_rows
from pipeline.ingest.table import ingest_table
from pipeline.score.tables import score_tables
from pipeline.split.tables import SplitTables, split_fingerprint
from pipeline.stage import Resources
from pipeline.storage import Store
from schemas.status import Failure

_MANY = 100_000


@dataclass(frozen=True, slots=True)
class PlanLine:
    """Items of one pass. None: not known before an earlier pass has run."""

    name: str
    num_items: int | None
    num_done: int

    @property
    def num_left(self) -> int | None:
        return None if self.num_items is None else self.num_items - self.num_done


def plan_walk(
    config: PipelineConfig, store: Store, inputs: Sequence[str], exclude: frozenset[str]
) -> Iterator[PlanLine]:
    """One line per pass up to the scores; what follows depends on them. Raises ListingError."""
    entries = list_inputs(inputs)
    readable = [entry for entry in entries if entry.failure is None]
    ingested = rows_by_item(ingest_table(store, config.ingest).read())
    num_ingested = sum(entry.item_id in ingested for entry in readable)
    yield PlanLine("ingest", len(readable), num_ingested)

    rows = source_rows(entries, ingested, exclude)
    present = {(row.source_uri, row.sha256) for row in rows if row.ok and row.duplicate_of is None}
    tables = SplitTables.at(store, split_fingerprint(config.split))
    num_split = len(present & tables.done_sources())
    is_known = num_ingested == len(readable)
    yield PlanLine("split", len(present) if is_known else None, num_split)

    clips = tables.clips.read(["clip_id", "ok", "source_uri", "source_sha256"]).to_pylist()
    clip_ids = {
        row["clip_id"]
        for row in clips
        if row["ok"] and (row["source_uri"], row["source_sha256"]) in present
    }
    is_known = is_known and num_split == len(present)
    embedded = embedding_table(store, config.embed, config.media).done_items("clip_id")
    yield PlanLine("embed", len(clip_ids) if is_known else None, len(clip_ids & embedded))
    for stage, table in score_tables(store, config.score).items():
        num_scored = len(clip_ids & table.done_items("clip_id"))
        yield PlanLine(f"score: {stage}", len(clip_ids) if is_known else None, num_scored)


def plan_workers(config: PipelineConfig, store: Store, engine: Engine) -> Iterator[tuple[str, int]]:
    """Workers that the cluster has room for, per pass. Raises PlanError where it has none."""
    gpus = 1.0 if config.embed.provider == "cuda" else 0.0
    needs = {
        "ingest": Resources(),
        "split": Resources(),
        "embed": Resources(num_gpus=gpus),
        "score": Resources(),
        "caption": worker_resources(config.caption),
        "pack": Resources(),
    }
    for name, resources in needs.items():
        (count,) = engine.plan(_empty_pass(name, resources))
        yield name, count


def _empty_pass(name: str, resources: Resources) -> Pass:
    """Many parts that are never worked on: only their number matters to the plan."""
    parts = tuple(Part(str(number), ()) for number in range(_MANY))
    spec = WorkerSpec(factory=_never_made, resources=resources)
    return Pass(name, parts, (spec,), _never_recorded, item_timeout_s=1.0)


def _never_made() -> Worker:
    raise AssertionError("a dry run starts no worker")


def _never_recorded(part: Part, failure: Failure) -> PartReport:
    raise AssertionError("a dry run records nothing")
