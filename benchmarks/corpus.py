"""Speed and recall of the corpus step on random vectors with planted near-duplicates.

    python -m benchmarks.corpus [--clips 100000] [--dimensions 512] [--threads 0]

Prints one JSON line per measurement. CPU seconds are of this process, so they also hold on a
machine that does other work.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.clusters import fit_centroids
from pipeline.corpus.config import DuplicateConfig
from pipeline.corpus.near_duplicates import Duplicates, find_near_duplicates
from pipeline.corpus.threads import math_threads

_NUM_CLUSTERS = 1000
_CONCEPTS = 500  # directions around which clips crowd, as footage does
_PLANTED_SHARE = 0.2
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    vectors_ND = planted_vectors(options.clips, options.dimensions)
    best_first = np.random.default_rng(1).permutation(options.clips)
    exact_config = DuplicateConfig()
    with math_threads(options.threads):
        exact = measured(
            "exact near-duplicates",
            partial(find_near_duplicates, vectors_ND, best_first, exact_config),
        )
        for num_probes in (1, 2, 4, 8, 16):
            config = DuplicateConfig(max_exact_clips=0, num_probes=num_probes)
            found = measured(
                f"partitioned near-duplicates, {num_probes} probes",
                partial(find_near_duplicates, vectors_ND, best_first, config),
            )
            say({"num_probes": num_probes, "recall": recall(found, exact)})
        measured(
            f"k-means, {_NUM_CLUSTERS} centroids",
            lambda: fit_centroids(
                vectors_ND, _NUM_CLUSTERS, num_iterations=25, max_train_per_cluster=256, seed=1
            ),
        )


def planted_vectors(num_clips: int, num_dimensions: int) -> NDArray[np.float32]:
    """Clips around concepts (cosine about 0.5); a fifth are copies with cosines 0.94 to 1."""
    generator = np.random.default_rng(0)
    concepts = generator.normal(size=(_CONCEPTS, num_dimensions)).astype(np.float32)
    vectors = concepts[generator.integers(0, _CONCEPTS, num_clips)]
    vectors += generator.normal(size=vectors.shape).astype(np.float32)
    num_planted = round(_PLANTED_SHARE * num_clips)
    spread = generator.uniform(0.0, 0.35, (num_planted, 1)).astype(np.float32)
    noise = generator.normal(size=(num_planted, num_dimensions)).astype(np.float32)
    vectors[-num_planted:] = vectors[:num_planted] + np.sqrt(np.float32(2)) * spread * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def recall(found: Duplicates, exact: Duplicates) -> float:
    """Share of the exact search's duplicates that were removed here, too."""
    is_duplicate = exact.duplicate_of_N >= 0
    return float((found.duplicate_of_N[is_duplicate] >= 0).mean())


def measured(name: str, work: Callable[[], T]) -> T:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    result = work()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    line: dict[str, object] = {"name": name, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1)}
    if isinstance(result, Duplicates):
        line["num_duplicates"] = int((result.duplicate_of_N >= 0).sum())
    say(line)
    return result


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
