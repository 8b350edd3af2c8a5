"""Vectors of the whole pool in, one CorpusRow per clip out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.balance import balance_weights
from pipeline.corpus.clusters import Clusters, cluster_clips
from pipeline.corpus.config import CorpusConfig
from pipeline.corpus.near_duplicates import Duplicates, find_near_duplicates
from pipeline.corpus.threads import math_threads
from schemas.corpus import CorpusRow

_MAX_NORM_ERROR = 1e-3
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """`rows` are sorted by clip id. `warnings` are for the run's report."""

    rows: list[CorpusRow]
    warnings: tuple[str, ...] = ()


def corpus_rows(
    clip_ids: Sequence[str],
    vectors_ND: Float32,
    quality_keys: Sequence[Sequence[float]],
    config: CorpusConfig,
    *,
    copy_ND: Float32 | None = None,
    groups: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    is_comparable: Sequence[bool] | None = None,
) -> list[CorpusRow]:
    """The rows of `build_corpus`, sorted by clip id."""
    return build_corpus(
        clip_ids,
        vectors_ND,
        quality_keys,
        config,
        copy_ND=copy_ND,
        groups=groups,
        sources=sources,
        is_comparable=is_comparable,
    ).rows


def build_corpus(
    clip_ids: Sequence[str],
    vectors_ND: Float32,
    quality_keys: Sequence[Sequence[float]],
    config: CorpusConfig,
    *,
    copy_ND: Float32 | None = None,
    groups: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    is_comparable: Sequence[bool] | None = None,
) -> Corpus:
    """Duplicates, concepts and weights of unit vectors of one model.

    Near-duplicates are sought with `copy_ND`, with `vectors_ND` where it is None.
    Of two near-duplicates the one with the greater quality key is kept (compared element by
    element), then the one with the smaller clip id. Duplicates are sought within a group (videos,
    images) and balance weights have mean 1 within a group; concepts are common to all. Clips of
    one source must be more alike to count; without `sources` each clip is one. A clip whose
    `is_comparable` is False is kept and removes nothing. The order of the input is of no
    consequence. Raises ValueError for repeated ids and vectors that are not unit vectors.
    """
    num_clips = len(clip_ids)
    ids_N = np.asarray(clip_ids, dtype=np.str_)
    order = np.argsort(ids_N)
    ids_N = ids_N[order]
    copy_ND = vectors_ND if copy_ND is None else copy_ND
    for checked_ND in (vectors_ND, copy_ND):
        _check(ids_N, checked_ND, num_clips)
    if num_clips == 0:
        return Corpus([])
    vectors_ND = np.ascontiguousarray(vectors_ND[order], dtype=np.float32)
    copy_ND = np.ascontiguousarray(copy_ND[order], dtype=np.float32)
    quality_NK = np.asarray(quality_keys, dtype=np.float64).reshape(num_clips, -1)[order]
    group_N = np.asarray(groups if groups is not None else [""] * num_clips)[order]
    source_N = np.unique(list(sources or clip_ids), return_inverse=True)[1]
    comparable_N = np.ones(num_clips, bool) if is_comparable is None else np.asarray(is_comparable)
    comparable_N = comparable_N[order]
    with math_threads(config.num_threads):
        duplicates = _duplicates(
            copy_ND, quality_NK, group_N, source_N[order], comparable_N, config
        )
        kept = np.flatnonzero(duplicates.duplicate_of_N < 0)
        clusters = cluster_clips(vectors_ND[kept], config.clusters, device=config.device)
    weight_M = np.empty(len(kept))
    for group in np.unique(group_N[kept]):
        members = group_N[kept] == group
        weight_M[members] = balance_weights(clusters.cluster_N[members], config.balance)
    rows = _rows(ids_N, duplicates, kept, clusters, weight_M)
    return Corpus(rows, clusters.warnings)


def _duplicates(
    vectors_ND: Float32,
    quality_NK: NDArray[np.float64],
    group_N: NDArray[np.str_],
    source_N: NDArray[np.int64],
    comparable_N: NDArray[np.bool_],
    config: CorpusConfig,
) -> Duplicates:
    num_clips = len(vectors_ND)
    found = Duplicates(np.full(num_clips, -1, np.int64), np.zeros(num_clips))
    if not config.duplicates.enabled:
        return found
    for group in np.unique(group_N):
        members = np.flatnonzero((group_N == group) & comparable_N)
        # lexsort's last key is the first to count; clips are sorted by id, and the sort is stable.
        best_first = np.lexsort(-quality_NK[members].T[::-1])
        part = find_near_duplicates(
            vectors_ND[members],
            best_first,
            config.duplicates,
            source_N=source_N[members],
            device=config.device,
        )
        is_duplicate = part.duplicate_of_N >= 0
        found.duplicate_of_N[members[is_duplicate]] = members[part.duplicate_of_N[is_duplicate]]
        found.similarity_N[members] = part.similarity_N
    return found


def _rows(
    ids_N: NDArray[np.str_],
    duplicates: Duplicates,
    kept: NDArray[np.int64],
    clusters: Clusters,
    weight_M: NDArray[np.float64],
) -> list[CorpusRow]:
    of_kept = {int(position): index for index, position in enumerate(kept)}
    rows = []
    for position, clip_id in enumerate(ids_N):
        if (index := of_kept.get(position)) is None:
            row = CorpusRow(
                clip_id=str(clip_id),
                duplicate_of=str(ids_N[duplicates.duplicate_of_N[position]]),
                similarity=round(float(duplicates.similarity_N[position]), 6),
            )
        else:
            row = CorpusRow(
                clip_id=str(clip_id),
                cluster=int(clusters.cluster_N[index]),
                cluster_distance=float(clusters.distance_N[index]),
                weight=float(weight_M[index]),
            )
        rows.append(row)
    return rows


def _check(ids_N: NDArray[np.str_], vectors_ND: Float32, num_clips: int) -> None:
    if vectors_ND.ndim != 2 or len(vectors_ND) != num_clips:
        raise ValueError(f"{num_clips} clips need vectors N x D, got shape {vectors_ND.shape}")
    if (repeated := ids_N[1:][ids_N[1:] == ids_N[:-1]]).size:
        raise ValueError(f"clip {repeated[0]} has more than one vector")
    if not np.isfinite(vectors_ND).all():
        raise ValueError("a vector holds NaN or infinity")
    norms = np.linalg.norm(vectors_ND, axis=1)
    if num_clips and np.abs(norms - 1).max() > _MAX_NORM_ERROR:
        raise ValueError(f"vectors must be unit vectors, got norms up to {norms.max():.4g}")
