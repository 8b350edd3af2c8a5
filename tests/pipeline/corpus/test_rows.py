"""The corpus step as a whole: small pools, order, groups, refusals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.corpus.config import BalanceConfig, ClusterConfig, CorpusConfig, DuplicateConfig
from pipeline.corpus.rows import build_corpus, corpus_rows
from schemas.corpus import CorpusRow

CONFIG = CorpusConfig(
    duplicates=DuplicateConfig(min_similarity=0.9, min_similarity_same_source=0.99, block_size=16),
    clusters=ClusterConfig(num_clusters=8, min_clips_per_cluster=4),
    num_threads=1,
)


def pool(num_clips: int, *, seed: int = 0, spread: float = 0.1) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    vectors = np.repeat(generator.normal(size=(-(-num_clips // 3), 16)), 3, axis=0)[:num_clips]
    vectors = vectors + spread * generator.normal(size=vectors.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def ids(num_clips: int) -> list[str]:
    return [f"{i:04d}" for i in range(num_clips)]


@pytest.mark.parametrize("num_clips", [0, 1, 2])
def test_tiny_pools_give_one_row_per_clip(num_clips: int) -> None:
    rows = corpus_rows(
        ids(num_clips), np.eye(2, 8, dtype=np.float32)[:num_clips], [(0,)] * num_clips, CONFIG
    )
    assert [row.clip_id for row in rows] == ids(num_clips)
    assert [(row.cluster, row.weight) for row in rows] == [(0, 1.0)] * num_clips


def test_equal_vectors_leave_one_clip() -> None:
    rows = corpus_rows(ids(50), np.tile(pool(1), (50, 1)), [(0,)] * 50, CONFIG)
    assert [row.clip_id for row in rows if row.duplicate_of is None] == ["0000"]
    assert {row.similarity for row in rows[1:]} == {1.0}


def test_equal_vectors_that_are_not_compared_share_one_cluster() -> None:
    rows = corpus_rows(
        ids(50), np.tile(pool(1), (50, 1)), [(0,)] * 50, CONFIG, is_comparable=[False] * 50
    )
    assert {row.duplicate_of for row in rows} == {None}
    assert len({row.cluster for row in rows}) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_order_of_the_input_is_of_no_consequence(seed: int, block_size: int) -> None:
    num_clips = 90
    vectors, quality = pool(num_clips), [(i % 4, i % 3) for i in range(num_clips)]
    order = np.random.default_rng(seed).permutation(num_clips)
    duplicates = CONFIG.duplicates.model_copy(update={"block_size": block_size})
    shuffled = corpus_rows(
        [ids(num_clips)[i] for i in order],
        vectors[order],
        [quality[i] for i in order],
        CONFIG.model_copy(update={"duplicates": duplicates}),
        groups=["video" if i % 2 else "image" for i in order],
    )
    straight = corpus_rows(
        ids(num_clips),
        vectors,
        quality,
        CONFIG,
        groups=["video" if i % 2 else "image" for i in range(num_clips)],
    )
    assert shuffled == straight
    assert any(row.duplicate_of for row in straight)


def test_the_better_clip_is_kept_then_the_smaller_id() -> None:
    vectors = np.tile(pool(1), (4, 1))
    rows = corpus_rows(["d", "c", "b", "a"], vectors, [(5, 2), (5, 9), (5, 9), (4, 99)], CONFIG)
    assert [row.duplicate_of for row in rows] == ["b", None, "b", "b"]


def test_a_video_is_never_a_duplicate_of_an_image() -> None:
    vectors = np.tile(pool(1), (4, 1))
    groups = ["image", "video", "image", "video"]
    rows = corpus_rows(ids(4), vectors, [(9,), (1,), (1,), (0,)], CONFIG, groups=groups)
    assert [row.duplicate_of for row in rows] == [None, None, "0000", "0001"]
    assert rows[0].cluster == rows[1].cluster == 0


def test_concepts_do_not_hang_on_the_vectors_of_copies() -> None:
    vectors, copies = pool(60, spread=0.01), pool(60, seed=1, spread=3.0)
    rows = corpus_rows(ids(60), vectors, [(0,)] * 60, CONFIG, copy_ND=copies)
    assert {row.duplicate_of for row in rows} == {None}
    assert len({row.cluster for row in rows[:3]}) == 1
    with pytest.raises(ValueError, match="unit vectors"):
        corpus_rows(ids(60), vectors, [(0,)] * 60, CONFIG, copy_ND=2 * copies)


def test_a_clip_that_is_not_compared_neither_goes_nor_removes() -> None:
    vectors = np.tile(pool(1), (3, 1))
    rows = corpus_rows(
        ids(3), vectors, [(9,), (5,), (1,)], CONFIG, is_comparable=[False, True, True]
    )
    assert [row.duplicate_of for row in rows] == [None, None, "0001"]


@pytest.mark.parametrize("method", ["cap", "temperature", "none"])
def test_weights_have_mean_one_in_every_group(method: Any) -> None:
    num_clips = 200
    config = CONFIG.model_copy(update={"balance": BalanceConfig(method=method)})
    groups = ["video" if i % 3 else "image" for i in range(num_clips)]
    rows = corpus_rows(
        ids(num_clips), pool(num_clips, spread=2.0), [(0,)] * num_clips, config, groups=groups
    )
    for group in ("video", "image"):
        weights = [r.weight for r, g in zip(rows, groups, strict=True) if g == group and r.weight]
        assert np.mean(weights) == pytest.approx(1.0, abs=1e-5)


def test_few_clips_reduce_the_clusters_and_say_so() -> None:
    corpus = build_corpus(ids(20), pool(20, spread=2.0), [(0,)] * 20, CONFIG)
    assert corpus.warnings == ("20 clips make 5 concept clusters, not 8: each needs 4 clips",)
    assert {row.cluster for row in corpus.rows} <= set(range(5))


@pytest.mark.parametrize(
    ("vectors", "needle"),
    [
        (np.full((2, 4), np.nan, np.float32), "NaN or infinity"),
        (np.full((2, 4), np.inf, np.float32), "NaN or infinity"),
        (np.zeros((2, 4), np.float32), "unit vectors"),
        (np.ones((2, 4), np.float32), "unit vectors, got norms up to 2"),
        (np.ones((3, 4), np.float32), "2 clips need vectors"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(
    vectors: NDArray[np.float32], needle: str
) -> None:
    with pytest.raises(ValueError, match=needle):
        corpus_rows(["a", "b"], vectors, [(0,), (0,)], CONFIG)


def test_a_clip_with_two_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match="clip a has more than one vector"):
        corpus_rows(["a", "b", "a"], pool(3), [(0,)] * 3, CONFIG)


def test_rows_are_complete_either_way() -> None:
    for row in corpus_rows(ids(60), pool(60), [(0,)] * 60, CONFIG):
        kept = (row.cluster, row.cluster_distance, row.weight)
        gone = (row.duplicate_of, row.similarity)
        assert isinstance(row, CorpusRow)
        assert (None in kept) != (None in gone)


def test_sources_follow_their_clips_whatever_the_order() -> None:
    """b is a copy of a from elsewhere; c is as like to both, and of the source of a."""
    vectors = np.zeros((3, 4), np.float32)
    vectors[:, 0] = 0.95
    vectors[[0, 1, 2], [1, 2, 3]] = np.sqrt(1 - 0.95**2)
    vectors[1] = 0.97 * vectors[0] + 0.03 * vectors[1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names, sources = ["a", "b", "c"], ["film", "copy", "film"]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        rows = corpus_rows(
            [names[i] for i in order],
            vectors[order],
            [(3 - i,) for i in order],
            CONFIG,
            sources=[sources[i] for i in order],
        )
        assert [row.duplicate_of for row in rows] == [None, "a", None]
