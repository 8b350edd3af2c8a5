"""Everything that the tables know about chosen clips, as rows again: for captions and packing."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import compute

from pipeline.arrow import STATUS_FIELDS
from pipeline.storage import Store
from pipeline.tier.join import CLIPS, CORPUS, SOURCES, open_table
from pipeline.tier.scores import NUMBER_FIELDS
from schemas.base import StrictModel
from schemas.clip import ClipRow
from schemas.scores import ClipScores
from schemas.source import Provenance

pc: Any = compute  # its stubs do not know chunked columns
_STATUS = frozenset(field.name for field in STATUS_FIELDS)


class ClipRecord(StrictModel):
    """One clip with its results. `clip.source_uri` is where the content lies now."""

    clip: ClipRow
    scores: ClipScores
    cluster: int | None
    weight: float
    provenance: Provenance


def read_records(
    store: Store, tables: Mapping[str, str], clip_ids: Collection[str]
) -> Iterator[ClipRecord]:
    """The records of these clips, ordered by clip id. Reads each table once.

    Memory grows with the chosen clips, by about 2 kB each. Raises ValueError for a clip that the
    tables do not hold.
    """
    wanted = pa.array(sorted(clip_ids), pa.string())
    clips = _chosen(store, tables, CLIPS, wanted)
    if clips.num_rows != len(wanted) or len(pc.drop_null(clips["clip_id"])) != len(wanted):
        raise ValueError(f"{len(wanted)} clips are wanted, the clips table holds fewer")
    corpus = _chosen(store, tables, CORPUS, wanted)
    scores = {stage: _chosen(store, tables, stage, wanted) for stage in NUMBER_FIELDS}
    sources = _sources(store, tables)
    for row in range(len(wanted)):
        clip = clips.slice(row, 1).to_pylist()[0]
        uri, provenance = sources.get(clip["source_sha256"], (clip["source_uri"], Provenance()))
        kept = corpus.slice(row, 1).to_pylist()[0]
        results = {stage: _result(table, row) for stage, table in scores.items()}
        yield ClipRecord(
            clip=ClipRow.model_validate(clip | {"source_uri": uri}),
            scores=ClipScores.model_validate(results),
            cluster=kept["cluster"],
            weight=0.0 if kept["weight"] is None else kept["weight"],
            provenance=provenance,
        )


def _chosen(store: Store, tables: Mapping[str, str], step: str, wanted: Any) -> pa.Table:
    """The rows of the wanted clips in their order, all null where the table has none."""
    keys: list[str] | None = None if step in tables else []
    table = open_table(store, step, tables.get(step, "")).read(keys=keys)
    return table.take(pc.index_in(wanted, value_set=table["clip_id"]))


def _result(table: pa.Table, row: int) -> dict[str, Any] | None:
    values = table.slice(row, 1).to_pylist()[0]
    if not values["ok"]:
        return None
    del values["clip_id"]
    return {name: value for name, value in values.items() if name not in _STATUS}


def _sources(store: Store, tables: Mapping[str, str]) -> dict[str, tuple[str, Provenance]]:
    """Content hash -> (URI, provenance) of the sources that count."""
    if SOURCES not in tables:
        return {}
    columns = ["source_uri", "sha256", "ok", "duplicate_of", "provenance"]
    table = open_table(store, SOURCES, tables[SOURCES]).read(columns)
    table = table.filter(pc.and_(table["ok"], pc.is_null(table["duplicate_of"])))
    return {
        row["sha256"]: (row["source_uri"], Provenance.model_validate(row["provenance"]))
        for row in table.to_pylist()
    }
