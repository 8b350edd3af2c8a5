"""Threads of FAISS and of the matrix products are a setting of the process: set, then put back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


@contextmanager
def math_threads(num_threads: int) -> Iterator[None]:
    """0: all cores that this process may use."""
    with threadpool_limits(limits=num_threads or len(os.sched_getaffinity(0))):
        yield
