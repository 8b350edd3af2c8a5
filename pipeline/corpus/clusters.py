"""Concepts: spherical k-means with FAISS, seeded, the same whatever the order of the clips.

Shape letters: N clips, K clusters, D dimensions. Vectors are unit vectors, sorted by clip id by
the caller; the training sample is drawn by FAISS from its seed.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.config import ClusterConfig

_LOG = logging.getLogger(__name__)
_ASSIGN_BLOCK = 65_536  # fixed, so that a clip's cell never depends on a memory setting
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """`distance_N` is 1 - cosine to the clip's centroid, at least 0."""

    cluster_N: Int64
    distance_N: NDArray[np.float64]
    centroids_KD: Float32
    warnings: tuple[str, ...]


def cluster_clips(
    vectors_ND: Float32, config: ClusterConfig, *, device: Literal["cpu", "cuda"] = "cpu"
) -> Clusters:
    """Fewer clusters than configured, with a warning, when clips are few."""
    num_clips = len(vectors_ND)
    if num_clips == 0:
        empty = np.empty((0, vectors_ND.shape[1]), np.float32)
        return Clusters(np.empty(0, np.int64), np.empty(0), empty, ())
    num_clusters = min(config.num_clusters, max(1, num_clips // config.min_clips_per_cluster))
    warnings: list[str] = []
    if num_clusters < config.num_clusters:
        warnings.append(
            f"{num_clips} clips make {num_clusters} concept clusters, not {config.num_clusters}: "
            f"each needs {config.min_clips_per_cluster} clips"
        )
        _LOG.warning(warnings[0])
    centroids_KD = fit_centroids(
        vectors_ND,
        num_clusters,
        num_iterations=config.num_iterations,
        max_train_per_cluster=config.max_train_clips_per_cluster,
        seed=config.seed,
        device=device,
    )
    nearest_N1, similarity_N1 = nearest_centroids(vectors_ND, centroids_KD, num_nearest=1)
    distance_N = np.maximum(0.0, 1.0 - similarity_N1[:, 0].astype(np.float64)).round(5)
    return Clusters(nearest_N1[:, 0], distance_N, centroids_KD, tuple(warnings))


def fit_centroids(
    vectors_ND: Float32,
    num_clusters: int,
    *,
    num_iterations: int,
    max_train_per_cluster: int,
    seed: int,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Float32:
    """Unit centroids K x D; K is smaller when fewer distinct vectors exist than asked for."""
    if len(vectors_ND) <= 2 * num_clusters:  # only then can distinct vectors be the limit
        num_clusters = min(num_clusters, len(np.unique(vectors_ND, axis=0)))
    kmeans = faiss.Kmeans(
        vectors_ND.shape[1],
        num_clusters,
        niter=num_iterations,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,  # the caller warns
        max_points_per_centroid=max_train_per_cluster,
        gpu=device == "cuda",
    )
    kmeans.train(vectors_ND)
    assert kmeans.centroids is not None
    return kmeans.centroids


def nearest_centroids(
    vectors_ND: Float32, centroids_KD: Float32, *, num_nearest: int
) -> tuple[Int64, Float32]:
    """N x num_nearest cluster numbers, nearest first, and their cosines."""
    index = faiss.IndexFlatIP(centroids_KD.shape[1])
    index.add(centroids_KD)
    nearest = np.empty((len(vectors_ND), num_nearest), np.int64)
    similarity = np.empty((len(vectors_ND), num_nearest), np.float32)
    for start in range(0, len(vectors_ND), _ASSIGN_BLOCK):
        block = slice(start, start + _ASSIGN_BLOCK)
        similarity[block], nearest[block] = index.search(vectors_ND[block], num_nearest)
    return nearest, similarity
