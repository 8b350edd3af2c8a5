"""The `corpus` table: one part, made anew whenever a clip, a vector or a knob changes."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.arrow import schema_of
from pipeline.corpus.config import CorpusConfig
from pipeline.corpus.rows import build_corpus
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import fingerprint
from schemas.clip import ClipRow
from schemas.corpus import CorpusRow

STEP = "corpus"
VERSION = 3  # raise it when decisions change
_PART_KEY = "all"


@dataclass(frozen=True, slots=True)
class CorpusInput:
    """Sorted by clip id; clips without a vector are left out.

    Near-duplicates are sought with `copy_ND`, concepts with `semantic_ND`: the same array for a
    model of one vector.
    """

    clips: list[ClipRow]
    semantic_ND: NDArray[np.float32]
    copy_ND: NDArray[np.float32]
    luma_sd_N: NDArray[np.float64]
    model_id: str | None  # None without any clip


@dataclass(frozen=True, slots=True)
class CorpusResult:
    table: Table
    was_done: bool
    warnings: tuple[str, ...]


def find_corpus(
    store: Store, clips: Iterable[ClipRow], embeddings: pa.Table, config: CorpusConfig
) -> CorpusResult:
    """The table for exactly these clips and vectors; computed when it is not there yet.

    `embeddings` holds the columns of the embedding table; rows of other clips are ignored.
    Raises ValueError when the vectors come from more than one model.
    """
    started_s = time.perf_counter()
    pool = read_input(clips, embeddings)
    key = fingerprint(STEP, VERSION, config.result_fields(), pool.model_id, _digest(pool))
    table = Table(store, STEP, key, schema_of(CorpusRow))
    if _PART_KEY in table.done_keys():
        return CorpusResult(table, was_done=True, warnings=())
    corpus = build_corpus(
        [clip.clip_id for clip in pool.clips],
        pool.semantic_ND,
        [quality_key(clip) for clip in pool.clips],
        config,
        copy_ND=pool.copy_ND,
        groups=[clip.media_kind for clip in pool.clips],
        sources=[clip.source_sha256 for clip in pool.clips],
        is_comparable=(pool.luma_sd_N >= config.duplicates.min_luma_sd).tolist(),
    )
    table.write_part(_PART_KEY, corpus.rows, seconds=time.perf_counter() - started_s)
    return CorpusResult(table, was_done=False, warnings=corpus.warnings)


def quality_key(clip: ClipRow) -> tuple[float, ...]:
    """The greater is kept: more pixels, then longer, then more frames a second."""
    return clip.width * clip.height, round(clip.end_s - clip.start_s, 3), clip.fps or 0.0


def read_input(clips: Iterable[ClipRow], embeddings: pa.Table) -> CorpusInput:
    """Join clips and vectors. Raises ValueError for vectors of more than one model."""
    by_id = {clip.clip_id: clip for clip in clips if clip.ok}
    is_wanted = pc.is_in(embeddings["clip_id"], pa.array(list(by_id), pa.string()))
    rows = embeddings.filter(pc.and_(embeddings["ok"], is_wanted)).sort_by("clip_id")
    model_ids = sorted(str(model_id) for model_id in pc.unique(rows["model_id"]).to_pylist())
    if len(model_ids) > 1:
        raise ValueError(f"vectors of different models cannot be compared: {', '.join(model_ids)}")
    semantic_ND = _vectors(rows, "semantic")
    has_copy = rows["copy"].null_count < rows.num_rows
    return CorpusInput(
        clips=[by_id[str(clip_id)] for clip_id in rows["clip_id"].to_pylist()],
        semantic_ND=semantic_ND,
        copy_ND=_vectors(rows, "copy") if has_copy else semantic_ND,
        luma_sd_N=np.asarray(rows["luma_sd"].to_numpy(), np.float64),
        model_id=model_ids[0] if model_ids else None,
    )


def _vectors(rows: pa.Table, column: str) -> NDArray[np.float32]:
    """N x D; 0 x 1 without rows."""
    flat = np.asarray(pc.list_flatten(rows[column]).to_numpy(), np.float32)
    return flat.reshape(rows.num_rows, -1) if rows.num_rows else flat.reshape(0, 1)


def _what_counts(clip: ClipRow) -> tuple[object, ...]:
    return clip.clip_id, clip.media_kind, clip.source_sha256, quality_key(clip)


def _digest(pool: CorpusInput) -> str:
    """Changes with any clip, vector, measure or quality; not with the parts they came in."""
    digest = hashlib.sha256()
    for clip in pool.clips:
        digest.update(repr(_what_counts(clip)).encode())
    digest.update(np.ascontiguousarray(pool.semantic_ND).data)
    digest.update(np.ascontiguousarray(pool.copy_ND).data)
    digest.update(np.ascontiguousarray(pool.luma_sd_N).data)
    return digest.hexdigest()
