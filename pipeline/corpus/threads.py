"""FAISS threads are a setting of the whole process: set for a block, then put back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def faiss_threads(num_threads: int) -> Iterator[None]:
    """0: all cores that this process may use."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
