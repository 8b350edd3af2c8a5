"""One flat table of everything that a decision needs: a row per clip, a column per number.

Tables are found by `tables`, step -> fingerprint. A step that is absent leaves its columns null.
The join is written down once per state of the tables (step `joined`), so that a question about a
threshold reads one file and only the columns that it needs.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import compute
from pydantic import BaseModel

from pipeline.arrow import schema_of, score_schema
from pipeline.storage import StorageError, Store
from pipeline.tables import Table
from pipeline.tier.scores import NUMBER_FIELDS, SCORE_PATHS, stage_models
from schemas.base import fingerprint
from schemas.clip import ClipRow
from schemas.corpus import CorpusRow
from schemas.source import SourceRow
from schemas.tier import ApprovalRow

pc: Any = compute  # its stubs do not know chunked columns

logger = logging.getLogger(__name__)

JOIN_VERSION = 2
SOURCES, CLIPS, CORPUS, APPROVALS, JOINED = "sources", "clips", "corpus", "approvals", "joined"
BOX_SIDES = ("left", "top", "right", "bottom")
_CLIP_COLUMNS = tuple(name for name in ClipRow.model_fields if name != "error")
_CORPUS_COLUMNS = ("duplicate_of", "similarity", "cluster", "cluster_distance", "weight")
_ROW_MODELS: Mapping[str, type[BaseModel]] = {
    SOURCES: SourceRow,
    CLIPS: ClipRow,
    CORPUS: CorpusRow,
    APPROVALS: ApprovalRow,
}


def open_table(store: Store, step: str, table_fingerprint: str) -> Table:
    """A table by its step's name: a score stage, or one of the steps that this file names."""
    if step in NUMBER_FIELDS:
        schema = score_schema(stage_models()[step])
    else:
        schema = schema_of(_ROW_MODELS[step])
    return Table(store, step, table_fingerprint, schema)


def load_joined(
    store: Store, tables: Mapping[str, str], columns: Sequence[str] | None = None
) -> pa.Table:
    """The join of the tables as they are now, from its own table where that is up to date."""
    cache, state = joined_part(store, tables)
    if state in cache.done_keys():
        return cache.read(columns, keys=[state])
    joined = join_tables(store, tables)
    try:
        cache.write_part(state, joined, seconds=0.0)
    except StorageError as error:
        logger.warning("the joined table is not kept: %s", error)
    return joined if columns is None else joined.select(list(columns))


def joined_part(store: Store, tables: Mapping[str, str]) -> tuple[Table, str]:
    """Where the join of the tables as they are now is kept: the table and the key in it."""
    inputs = {step: tables[step] for step in _input_steps() if step in tables}
    cache = Table(store, JOINED, fingerprint(JOIN_VERSION, inputs), joined_schema())
    return cache, _state(store, inputs)


def join_tables(store: Store, tables: Mapping[str, str]) -> pa.Table:
    """Clips of the present sources with their corpus row, numbers and approval.

    With a `sources` table, clips of sources that are gone, excluded or duplicates of another are
    left out, and `source_uri` is where the content lies now.
    """
    clips = _clips(store, tables)
    columns: dict[str, Any] = {name: clips[name] for name in clips.column_names}
    matcher = _Matcher(clips["clip_id"])
    nothing = pa.nulls(clips.num_rows, pa.float64())

    corpus = _read(store, tables, CORPUS, ["clip_id", *_CORPUS_COLUMNS])
    rows = matcher.rows(corpus)
    columns["in_corpus"] = pc.is_valid(rows)
    for name in _CORPUS_COLUMNS:
        columns[name] = corpus[name].take(rows)

    for stage, names in NUMBER_FIELDS.items():
        box = ["box"] if stage == "crop" else []
        scores = _read(store, tables, stage, ["clip_id", "ok", *names, *box])
        scores = scores.filter(scores["ok"])
        rows = matcher.rows(scores)
        for name in names:
            found = scores[name].cast(pa.float64()) if scores.num_rows else None
            columns[f"{stage}.{name}"] = nothing if found is None else found.take(rows)
        for side in BOX_SIDES if box else ():
            found = pc.struct_field(scores["box"], side) if scores.num_rows else None
            columns[f"crop.{side}"] = nothing if found is None else found.take(rows)

    approvals = _read(store, tables, APPROVALS, ["clip_id", "approved"])
    rows = matcher.rows(approvals)
    columns["approved"] = pc.fill_null(approvals["approved"].take(rows), False)
    return pa.table({name: columns[name] for name in joined_schema().names}, joined_schema())


def joined_schema() -> pa.Schema:
    """Columns of the join: the clip, its corpus row, every number, the crop's box, approval."""
    clip, corpus = schema_of(ClipRow), schema_of(CorpusRow)
    numbers = [*SCORE_PATHS, *(f"crop.{side}" for side in BOX_SIDES)]
    fields: list[pa.Field[pa.DataType]] = [
        *(clip.field(name) for name in _CLIP_COLUMNS),
        pa.field("in_corpus", pa.bool_()),
        *(corpus.field(name) for name in _CORPUS_COLUMNS),
        *(pa.field(name, pa.float64()) for name in numbers),
        pa.field("approved", pa.bool_()),
    ]
    return pa.schema(fields)


class _Matcher:
    """Finds each clip's row in other tables; tables of one pass share their order of clips."""

    def __init__(self, clip_ids: Any) -> None:
        self.clip_ids = clip_ids
        self.last: tuple[Any, Any] | None = None

    def rows(self, table: pa.Table) -> Any:
        """Positions in `table`, null for a clip that it does not have."""
        keys = table["clip_id"]
        if self.last is not None and self.last[0].equals(keys):
            return self.last[1]
        rows = pc.index_in(self.clip_ids, value_set=keys).combine_chunks()
        if isinstance(rows, pa.ChunkedArray):  # an empty column combines to itself
            rows = pa.array([], pa.int32())
        self.last = (keys, rows)
        return rows


def _clips(store: Store, tables: Mapping[str, str]) -> pa.Table:
    clips = _read(store, tables, CLIPS, list(_CLIP_COLUMNS))
    if SOURCES in tables:
        wanted = ["source_uri", "sha256", "ok", "duplicate_of"]
        sources = _read(store, tables, SOURCES, wanted)
        sources = sources.filter(pc.and_(sources["ok"], pc.is_null(sources["duplicate_of"])))
        rows = pc.index_in(clips["source_sha256"], value_set=sources["sha256"])
        clips = clips.filter(pc.is_valid(rows))
        uris = sources["source_uri"].take(rows.drop_null())
        place = clips.schema.get_field_index("source_uri")
        clips = clips.set_column(place, clips.schema.field("source_uri"), uris)
    return _first_of_each(clips)


def _first_of_each(clips: pa.Table) -> pa.Table:
    """One row per clip, and per failed stretch of a source, which has no clip id.

    A source that was moved between two runs, or that a worker without its driver finished beside
    the next run, may have its rows twice.
    """
    start = clips["start_frame"].cast(pa.string())
    keys = pc.binary_join_element_wise(clips["clip_id"], clips["source_sha256"], start, " ")
    if len(keys) == pc.count_distinct(keys).as_py():
        return clips
    rows = pc.index_in(keys, value_set=keys)
    return clips.filter(pc.equal(rows, pa.array(range(clips.num_rows), pa.int32())))


def _read(store: Store, tables: Mapping[str, str], step: str, columns: Sequence[str]) -> pa.Table:
    table = open_table(store, step, tables.get(step, ""))
    return table.read(columns, keys=None if step in tables else [])


def _input_steps() -> Iterator[str]:
    yield from (SOURCES, CLIPS, CORPUS, *NUMBER_FIELDS, APPROVALS)


def _state(store: Store, inputs: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for step, table_fingerprint in sorted(inputs.items()):
        keys = open_table(store, step, table_fingerprint).done_keys()
        digest.update("\n".join([step, table_fingerprint, *keys, ""]).encode())
    return digest.hexdigest()[:16]
