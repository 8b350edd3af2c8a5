"""What the report reads: the run's record, the joined table, and where steps failed."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import compute

from pipeline.caption.worker import caption_table
from pipeline.storage import Store
from pipeline.tier.join import CLIPS, SOURCES, open_table
from pipeline.tier.scores import NUMBER_FIELDS

pc: Any = compute  # its stubs do not know chunked columns

_STATUS = ("ok", "error_class", "error")
_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class StepFailures:
    """Items of one step that have no result for one reason, with a few of them in full."""

    step: str
    error_class: str
    num_items: int
    examples: tuple[tuple[str, str], ...]  # (source or clip, the error's line)


@dataclass(frozen=True, slots=True)
class PoolTotals:
    """What went in. `hours` as the containers state their durations."""

    num_videos: int
    num_images: int
    hours: float
    num_bytes: int


def step_failures(store: Store, tables: Mapping[str, str]) -> list[StepFailures]:
    """By step in the order of the walk, the most frequent reason first."""
    found: list[StepFailures] = []
    for step, key, table in _status_tables(store, tables):
        rows = table.filter(pc.invert(table["ok"])).to_pylist()
        reasons = Counter(row["error_class"] for row in rows)
        examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in rows:
            if len(examples[row["error_class"]]) < _MAX_EXAMPLES:
                examples[row["error_class"]].append((row[key], row["error"] or ""))
        found.extend(
            StepFailures(step, reason, count, tuple(examples[reason]))
            for reason, count in reasons.most_common()
        )
    return found


def pool_totals(store: Store, tables: Mapping[str, str]) -> PoolTotals:
    if SOURCES not in tables:
        return PoolTotals(0, 0, 0.0, 0)
    sources = open_table(store, SOURCES, tables[SOURCES]).read(["ok", "probe", "num_bytes"])
    rows = sources.filter(sources["ok"]).to_pylist()
    probes = [row["probe"] for row in rows if row["probe"] is not None]
    videos = [probe for probe in probes if probe["media_kind"] == "video"]
    return PoolTotals(
        num_videos=len(videos),
        num_images=len(probes) - len(videos),
        hours=sum(probe["duration_s"] or 0.0 for probe in videos) / 3600,
        num_bytes=sum(row["num_bytes"] or 0 for row in rows),
    )


def _status_tables(store: Store, tables: Mapping[str, str]) -> Iterator[tuple[str, str, pa.Table]]:
    """(step, column that names the item, status columns) of every step that ran."""
    for step in (SOURCES, CLIPS, *NUMBER_FIELDS):
        if step not in tables:
            continue
        key = "source_uri" if step in (SOURCES, CLIPS) else "clip_id"
        columns = [key, *_STATUS, *(["clip_id"] if step == CLIPS else [])]
        found = open_table(store, step, tables[step]).read(columns)
        if step == CLIPS:  # a shot that was dropped for a reason has an id, and is no failure
            found = found.filter(pc.or_(found["ok"], pc.equal(found["clip_id"], "")))
        yield step, key, found
    if "captions" in tables:
        captions = caption_table(store, tables["captions"])
        yield "captions", "clip_id", captions.read(["clip_id", *_STATUS])
