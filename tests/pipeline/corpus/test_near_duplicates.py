"""Near-duplicates: the greedy rule against a plain loop, and what must not change a decision."""

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.corpus.config import DuplicateConfig
from pipeline.corpus.kept_index import GpuIndex
from pipeline.corpus.near_duplicates import find_near_duplicates

Float32 = NDArray[np.float32]


def families(num_families: int, size: int, *, spread: float, seed: int = 0) -> Float32:
    """Unit vectors: `size` copies around each of `num_families` random directions."""
    generator = np.random.default_rng(seed)
    centers = np.repeat(generator.normal(size=(num_families, 32)), size, axis=0)
    vectors = centers + spread * generator.normal(size=centers.shape)
    return unit(vectors)


def unit(vectors: NDArray[np.float64]) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def greedy_by_a_plain_loop(
    vectors_ND: Float32, best_first: NDArray[np.int64], min_similarity: float
) -> NDArray[np.int64]:
    exact = vectors_ND.astype(np.float64)
    duplicate_of = np.full(len(vectors_ND), -1)
    kept: list[int] = []
    for clip in best_first:
        cosines = [float(exact[clip] @ exact[other]) for other in kept]
        if cosines and max(cosines) >= min_similarity:
            duplicate_of[clip] = kept[int(np.argmax(cosines))]
        else:
            kept.append(int(clip))
    return duplicate_of


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("block_size", [1, 7, 64, 1000])
def test_decisions_equal_those_of_a_plain_loop(spread: float, block_size: int) -> None:
    vectors_ND = families(40, 5, spread=spread)
    best_first = np.random.default_rng(1).permutation(len(vectors_ND))
    config = DuplicateConfig(min_similarity=0.9, block_size=block_size)
    found = find_near_duplicates(vectors_ND, best_first, config)
    expected = greedy_by_a_plain_loop(vectors_ND, best_first, 0.9)
    np.testing.assert_array_equal(found.duplicate_of_N, expected)


def test_a_removed_clip_removes_nothing() -> None:
    """A chain a - b - c with a unlike c: b goes, c stays."""
    angles = np.radians([0.0, 20.0, 40.0])
    vectors_ND = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    config = DuplicateConfig(min_similarity=0.9)
    found = find_near_duplicates(vectors_ND, np.arange(3), config)
    assert found.duplicate_of_N.tolist() == [-1, 0, -1]
    assert found.similarity_N[1] == pytest.approx(np.cos(np.radians(20)), abs=1e-6)


def test_equal_vectors_keep_the_best_alone() -> None:
    vectors_ND = np.repeat(families(2, 1, spread=0), 500, axis=0)
    best_first = np.random.default_rng(0).permutation(1000)
    found = find_near_duplicates(vectors_ND, best_first, DuplicateConfig(block_size=64))
    kept = np.flatnonzero(found.duplicate_of_N < 0)
    assert len(kept) == 2
    firsts = [next(c for c in best_first if c < 500), next(c for c in best_first if c >= 500)]
    assert sorted(kept) == sorted(firsts)


def test_copies_of_a_removed_clip_name_what_was_kept() -> None:
    vectors_ND = unit(np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.1]]))
    found = find_near_duplicates(vectors_ND, np.arange(3), DuplicateConfig(min_similarity=0.9))
    assert found.duplicate_of_N.tolist() == [-1, 0, 0]


@pytest.mark.parametrize("block_size", [16, 100])
def test_partitions_find_the_pairs_that_lie_close(block_size: int) -> None:
    vectors_ND = families(300, 4, spread=0.05)
    best_first = np.random.default_rng(2).permutation(len(vectors_ND))
    exact = find_near_duplicates(vectors_ND, best_first, DuplicateConfig(min_similarity=0.95))
    partitioned = find_near_duplicates(
        vectors_ND,
        best_first,
        DuplicateConfig(
            min_similarity=0.95,
            max_exact_clips=0,
            clips_per_partition=40,
            num_probes=4,
            block_size=block_size,
        ),
    )
    np.testing.assert_array_equal(partitioned.duplicate_of_N, exact.duplicate_of_N)


def test_block_sizes_do_not_change_what_partitions_miss() -> None:
    """With one probe some pairs are lost: the same ones, however the clips are blocked."""
    vectors_ND = families(300, 4, spread=0.3)
    best_first = np.arange(len(vectors_ND))
    found = [
        find_near_duplicates(
            vectors_ND,
            best_first,
            DuplicateConfig(
                min_similarity=0.85,
                max_exact_clips=0,
                clips_per_partition=20,
                num_probes=1,
                block_size=block_size,
            ),
        ).duplicate_of_N
        for block_size in (5, 50, 5000)
    ]
    exact = find_near_duplicates(vectors_ND, best_first, DuplicateConfig(min_similarity=0.85))
    assert not np.array_equal(found[0], exact.duplicate_of_N)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_growing_neighbor_lists_find_all_that_a_range_search_finds() -> None:
    """The way of the GPU, on FAISS's index of the same interface on the CPU."""
    vectors_ND = np.concatenate([families(1, 90, spread=0.05), families(200, 1, spread=0.0)])
    index = GpuIndex(vectors_ND, faiss.IndexFlatIP(vectors_ND.shape[1]))
    kept = np.arange(0, len(vectors_ND), 2)
    index.add(kept)
    queries = np.arange(1, len(vectors_ND), 2)
    pairs = {(int(q), int(k)) for q, k in zip(*index.candidates(queries, 0.9), strict=True)}
    cosines = vectors_ND[queries] @ vectors_ND[kept].T
    rows, columns = np.nonzero(cosines >= 0.9)
    expected = {(int(queries[r]), int(kept[c])) for r, c in zip(rows, columns, strict=True)}
    assert len(expected) > 45 * 40
    assert pairs == expected


def test_other_moments_of_a_source_stay_until_they_repeat() -> None:
    """Cosines to the first: 0.95, 0.95, 0.995; only the second comes from another source."""
    cosines = np.array([1.0, 0.95, 0.95, 0.995])
    vectors = np.zeros((4, 4))
    vectors[:, 0] = cosines
    vectors[[1, 2, 3], [1, 2, 3]] = np.sqrt(1 - cosines[1:] ** 2)
    config = DuplicateConfig(min_similarity=0.9, min_similarity_same_source=0.99)
    found = find_near_duplicates(
        vectors.astype(np.float32), np.arange(4), config, source_N=np.array([7, 8, 7, 7])
    )
    assert found.duplicate_of_N.tolist() == [-1, 0, -1, 0]


def test_a_source_is_never_held_to_less_than_others_are() -> None:
    vectors = unit(np.array([[1.0, 0.0], [1.0, 0.2]]))  # cosine 0.981
    config = DuplicateConfig(min_similarity=0.99, min_similarity_same_source=0.9)
    for source_N in (np.array([0, 0]), np.array([0, 1])):
        found = find_near_duplicates(vectors, np.arange(2), config, source_N=source_N)
        assert (found.duplicate_of_N == -1).all()
