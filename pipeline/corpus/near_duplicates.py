"""Near-duplicates by cosine, decided greedily: best clip first, compared with kept clips only.

A clip that was itself removed removes nothing, so a long chain of gradual change keeps a clip
every now and then instead of collapsing into one. (SemDeDup, arXiv 2303.09540, lets removed clips
remove; connected components collapse chains.) The decision depends on the vectors and the order of
quality alone: each candidate pair's cosine is computed again in float64, pair by pair.

Shape letters: N clips, D dimensions, B clips of a block.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.config import DuplicateConfig
from pipeline.corpus.kept_index import ExactIndex, GpuIndex, KeptIndex, PartitionedIndex

# Above the error of a float32 dot product of unit vectors with a few thousand dimensions.
_SEARCH_MARGIN = 1e-4
_PAIRS_AT_ONCE = 65_536
_PARTITION_SEED = 1234
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Per clip: position of the kept clip that it duplicates (-1: kept), and their cosine."""

    duplicate_of_N: Int64
    similarity_N: Float64


def find_near_duplicates(
    vectors_ND: Float32,
    best_first_N: Int64,
    config: DuplicateConfig,
    *,
    source_N: Int64 | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Duplicates:
    """`best_first_N` lists all positions, the clip that is kept in any case first.

    `source_N` numbers the sources; without it every clip has its own. The kept clip that is named
    is the most similar one that is similar enough; of equals, the better. Clips with equal vectors
    share the fate of the best of them.
    """
    num_clips = len(vectors_ND)
    if num_clips == 0:
        return Duplicates(np.empty(0, np.int64), np.empty(0))
    if source_N is None:
        source_N = np.arange(num_clips)
    # Without this step a pool of n equal clips would have n^2 candidate pairs.
    first_of_N = _first_equal_vector(vectors_ND, best_first_N)
    is_distinct_N = first_of_N == np.arange(num_clips)
    distinct = best_first_N[is_distinct_N[best_first_N]]
    duplicates = _search(vectors_ND, distinct, source_N, config, device)
    copies = np.flatnonzero(~is_distinct_N)
    firsts = first_of_N[copies]
    is_kept = duplicates.duplicate_of_N[firsts] < 0
    duplicates.duplicate_of_N[copies] = np.where(is_kept, firsts, duplicates.duplicate_of_N[firsts])
    duplicates.similarity_N[copies] = np.where(is_kept, 1.0, duplicates.similarity_N[firsts])
    return duplicates


def _first_equal_vector(vectors_ND: Float32, best_first_N: Int64) -> Int64:
    """Per clip the position of the best clip whose vector has the same bytes."""
    ordered = np.ascontiguousarray(vectors_ND[best_first_N])
    as_bytes = ordered.view(np.dtype((np.void, ordered.shape[1] * ordered.itemsize)))[:, 0]
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    first_of_N = np.empty(len(best_first_N), np.int64)
    first_of_N[best_first_N] = best_first_N[first[inverse]]
    return first_of_N


def _search(
    vectors_ND: Float32,
    best_first: Int64,
    source_N: Int64,
    config: DuplicateConfig,
    device: Literal["cpu", "cuda"],
) -> Duplicates:
    num_clips = len(vectors_ND)
    duplicate_of_N = np.full(num_clips, -1, np.int64)
    similarity_N = np.zeros(num_clips)
    rank_N = np.zeros(num_clips, np.int64)
    rank_N[best_first] = np.arange(len(best_first))
    index = _index_for(vectors_ND, best_first, config, device)
    radius = config.min_similarity - _SEARCH_MARGIN
    for start in range(0, len(best_first), config.block_size):
        block_B = best_first[start : start + config.block_size]
        # A clip may duplicate one of an earlier block or an earlier one of its own block.
        before = index.candidates(block_B, radius)
        within = _pairs_within(block_B, vectors_ND, index, radius)
        queries, others = np.concatenate([before, within], axis=1)
        similarities = pair_similarities(vectors_ND, queries, others)
        # Queries in order of quality; for each its most similar clip first, the better of equals.
        order = np.lexsort((rank_N[others], -similarities, rank_N[queries]))
        needed = _needed_similarities(source_N[queries] == source_N[others], config)
        order = order[(similarities >= needed)[order]]
        starts = np.flatnonzero(np.diff(queries[order], prepend=-1))
        for pairs in np.split(order, starts[1:]) if len(order) else ():
            is_kept = duplicate_of_N[others[pairs]] < 0
            if is_kept.any():
                pair = pairs[np.argmax(is_kept)]
                duplicate_of_N[queries[pair]] = others[pair]
                similarity_N[queries[pair]] = similarities[pair]
        index.add(block_B[duplicate_of_N[block_B] < 0])
    return Duplicates(duplicate_of_N, similarity_N)


def _needed_similarities(is_same_source: NDArray[np.bool_], config: DuplicateConfig) -> Float64:
    same_source = max(config.min_similarity, config.min_similarity_same_source)
    return np.where(is_same_source, same_source, config.min_similarity)


def pair_similarities(vectors_ND: Float32, left: Int64, right: Int64) -> Float64:
    """Cosines of pairs in float64: each depends on its two vectors only."""
    similarities = np.empty(len(left))
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        pairs = slice(start, start + _PAIRS_AT_ONCE)
        products = vectors_ND[left[pairs]].astype(np.float64) * vectors_ND[right[pairs]]
        similarities[pairs] = products.sum(axis=1)
    return similarities


def _index_for(
    vectors_ND: Float32,
    positions: Int64,
    config: DuplicateConfig,
    device: Literal["cpu", "cuda"],
) -> KeptIndex:
    if len(positions) <= config.max_exact_clips:
        return GpuIndex(vectors_ND) if device == "cuda" else ExactIndex(vectors_ND)
    return PartitionedIndex(
        vectors_ND,
        clips_per_partition=config.clips_per_partition,
        num_probes=config.num_probes,
        seed=_PARTITION_SEED,
    )


def _pairs_within(
    block_B: Int64, vectors_ND: Float32, index: KeptIndex, radius: float
) -> tuple[Int64, Int64]:
    """Candidate pairs (later clip, earlier clip) of one block, ordered best first."""
    block_BD = vectors_ND[block_B]
    is_candidate = np.tril(block_BD @ block_BD.T >= radius, k=-1)
    is_candidate &= index.comparable(block_B, block_B)
    later, earlier = np.nonzero(is_candidate)
    return block_B[later], block_B[earlier]
