"""Concept clusters: recovery of known groups, and independence of threads."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.corpus.balance import balance_weights
from pipeline.corpus.clusters import cluster_clips, fit_centroids
from pipeline.corpus.config import BalanceConfig, ClusterConfig
from pipeline.corpus.threads import math_threads


def groups(num_groups: int, size: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    vectors = np.repeat(generator.normal(size=(num_groups, 64)), size, axis=0)
    vectors += 0.2 * generator.normal(size=vectors.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_well_separated_groups_are_never_merged_with_enough_clusters() -> None:
    """Seeding may split a group; with twice the clusters no cluster holds clips of two groups."""
    clusters = cluster_clips(
        groups(10, 40), ClusterConfig(num_clusters=40, min_clips_per_cluster=5)
    )
    group_of = np.repeat(np.arange(10), 40)
    for cluster in np.unique(clusters.cluster_N):
        assert len(set(group_of[clusters.cluster_N == cluster])) == 1
    assert clusters.distance_N.max() < 0.5


def test_the_distance_is_one_minus_the_cosine_to_the_nearest_centroid() -> None:
    vectors = groups(5, 30)
    clusters = cluster_clips(vectors, ClusterConfig(num_clusters=5, min_clips_per_cluster=1))
    cosines = vectors @ clusters.centroids_KD.T
    np.testing.assert_array_equal(clusters.cluster_N, cosines.argmax(axis=1))
    np.testing.assert_allclose(clusters.distance_N, 1 - cosines.max(axis=1), atol=2e-5)


def test_threads_do_not_change_the_centroids() -> None:
    vectors = groups(30, 50)
    found = []
    for num_threads in (1, 2, 4):
        with math_threads(num_threads):
            found.append(
                fit_centroids(vectors, 20, num_iterations=10, max_train_per_cluster=64, seed=3)
            )
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_cap_levels_the_large_clusters_and_leaves_the_small_ones() -> None:
    cluster_N = np.repeat(np.arange(11), [10] * 10 + [100])
    weights = balance_weights(cluster_N, BalanceConfig(method="cap", cap_quantile=0.9))
    assert weights[0] / weights[-1] == pytest.approx(10.0, rel=1e-4)
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)


def test_temperature_is_a_power_of_the_cluster_size_within_its_limits() -> None:
    cluster_N = np.repeat([0, 1, 2], [1, 16, 4])
    weights = balance_weights(cluster_N, BalanceConfig(method="temperature", alpha=0.5))
    assert weights[0] / weights[-1] == pytest.approx(2.0, rel=1e-4)
    assert weights[0] / weights[1] == pytest.approx(4.0, rel=1e-4)
    cluster_N = np.repeat([0, 1], [1, 10_000])
    weights = balance_weights(cluster_N, BalanceConfig(method="temperature", alpha=0.0))
    assert weights.max() == 4.0
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
