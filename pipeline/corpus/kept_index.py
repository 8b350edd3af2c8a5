"""Search among the clips kept so far: exactly, or in the partitions nearest to each query.

Both return candidates, not decisions: every pair whose similarity may reach the radius, and some
that do not. The caller computes the similarity of each pair again, so block sizes, threads and
devices cannot change a decision. Shape letters: N clips, Q queries, D dimensions, P probes.
"""

from typing import Any, Protocol

import faiss
import numpy as np
from faiss.contrib import ivf_tools
from numpy.typing import NDArray

from pipeline.corpus.clusters import fit_centroids, nearest_centroids

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
_KEPT_BLOCK = 8192
_FIRST_NEIGHBORS = 16
_MAX_NEIGHBORS_GPU = 2048  # what FAISS kernels on a GPU can select


class KeptIndex(Protocol):
    """Clips are named by their position in the array that the index was made for."""

    def add(self, positions: Int64) -> None:
        """Clips that were kept."""

    def candidates(self, queries: Int64, radius: float) -> tuple[Int64, Int64]:
        """Pairs (query position, kept position) that may be at least as similar as `radius`."""

    def comparable(self, queries: Int64, others: Int64) -> Bool:
        """Whether the index would show each of `others` to each query, had it kept them."""


class ExactIndex:
    """Every query against every kept clip, block by block.

    On the CPU through NumPy's matrix product: FAISS's flat index computes the same, but its own
    BLAS picks slow kernels on some processors (measured: 14 against 67 GFLOP/s on one core).
    """

    def __init__(self, vectors_ND: Float32) -> None:
        self._vectors_ND = vectors_ND
        self._kept_ND = np.empty_like(vectors_ND)
        self._positions_N = np.empty(len(vectors_ND), np.int64)
        self._num_kept = 0

    def add(self, positions: Int64) -> None:
        stop = self._num_kept + len(positions)
        self._kept_ND[self._num_kept : stop] = self._vectors_ND[positions]
        self._positions_N[self._num_kept : stop] = positions
        self._num_kept = stop

    def candidates(self, queries: Int64, radius: float) -> tuple[Int64, Int64]:
        queries_QD = self._vectors_ND[queries]
        rows, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, self._num_kept, _KEPT_BLOCK):
            stop = min(start + _KEPT_BLOCK, self._num_kept)
            row, column = np.nonzero(queries_QD @ self._kept_ND[start:stop].T >= radius)
            rows.append(row)
            found.append(start + column)
        return queries[np.concatenate(rows)], self._positions_N[np.concatenate(found)]

    def comparable(self, queries: Int64, others: Int64) -> Bool:
        return np.ones((len(queries), len(others)), dtype=bool)


class GpuIndex:
    """As ExactIndex, with FAISS's flat index on the first GPU."""

    def __init__(self, vectors_ND: Float32, index: Any = None) -> None:
        self._vectors_ND = vectors_ND
        self._positions: list[Int64] = []
        self._index = index or _flat_index_on_gpu(vectors_ND.shape[1])

    def add(self, positions: Int64) -> None:
        if len(positions):
            self._index.add(self._vectors_ND[positions])
            self._positions.append(positions)

    def candidates(self, queries: Int64, radius: float) -> tuple[Int64, Int64]:
        if self._index.ntotal == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows, found = _neighbors_in_radius(self._index, self._vectors_ND[queries], radius)
        return queries[rows], np.concatenate(self._positions)[found]

    def comparable(self, queries: Int64, others: Int64) -> Bool:
        return np.ones((len(queries), len(others)), dtype=bool)


class PartitionedIndex:
    """Each kept clip lies in the cell of its nearest centroid; a query looks into P cells."""

    def __init__(
        self, vectors_ND: Float32, *, clips_per_partition: int, num_probes: int, seed: int
    ) -> None:
        num_cells = max(1, len(vectors_ND) // clips_per_partition)
        centroids_KD = fit_centroids(
            vectors_ND, num_cells, num_iterations=10, max_train_per_cluster=64, seed=seed
        )
        num_probes = min(num_probes, len(centroids_KD))
        self._vectors_ND = vectors_ND
        self._probes_NP, _ = nearest_centroids(vectors_ND, centroids_KD, num_nearest=num_probes)
        quantizer = faiss.IndexFlatIP(vectors_ND.shape[1])
        quantizer.add(centroids_KD)
        self._index = faiss.IndexIVFFlat(
            quantizer, vectors_ND.shape[1], len(centroids_KD), faiss.METRIC_INNER_PRODUCT
        )
        self._index.nprobe = num_probes

    def add(self, positions: Int64) -> None:
        if len(positions):
            homes = np.ascontiguousarray(self._probes_NP[positions, 0])
            ivf_tools.add_preassigned(  # type: ignore[no-untyped-call]
                self._index, self._vectors_ND[positions], homes, np.ascontiguousarray(positions)
            )

    def candidates(self, queries: Int64, radius: float) -> tuple[Int64, Int64]:
        limits, _, found = ivf_tools.range_search_preassigned(  # type: ignore[no-untyped-call]
            self._index,
            self._vectors_ND[queries],
            radius,
            np.ascontiguousarray(self._probes_NP[queries]),
        )
        rows = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        return queries[rows], found.astype(np.int64)

    def comparable(self, queries: Int64, others: Int64) -> Bool:
        homes = self._probes_NP[others, 0]
        shown = np.zeros((len(queries), len(others)), dtype=bool)
        for probe in range(self._probes_NP.shape[1]):
            shown |= self._probes_NP[queries, probe][:, None] == homes[None, :]
        return shown


def _neighbors_in_radius(index: Any, queries_QD: Float32, radius: float) -> tuple[Int64, Int64]:
    """Range search by growing top-k: indexes on a GPU have no range search."""
    num_neighbors = min(_FIRST_NEIGHBORS, index.ntotal)
    open_rows = np.arange(len(queries_QD))
    rows: list[Int64] = []
    found: list[Int64] = []
    while len(open_rows):
        similarity, neighbor = index.search(queries_QD[open_rows], num_neighbors)
        is_last_round = num_neighbors in (index.ntotal, _MAX_NEIGHBORS_GPU)
        is_done = np.full(len(open_rows), is_last_round) | (similarity[:, -1] < radius)
        row, column = np.nonzero((similarity >= radius) & is_done[:, None])
        rows.append(open_rows[row])
        found.append(neighbor[row, column].astype(np.int64))
        open_rows = open_rows[~is_done]
        num_neighbors = min(4 * num_neighbors, index.ntotal, _MAX_NEIGHBORS_GPU)
    return np.concatenate(rows), np.concatenate(found)


def _flat_index_on_gpu(num_dimensions: int) -> Any:
    if not hasattr(faiss, "StandardGpuResources"):
        raise ValueError("device 'cuda' needs FAISS built for the GPU (faiss-gpu); choose cpu")
    index = faiss.IndexFlatIP(num_dimensions)
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
