import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.modeling.data.shards import write_shards


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven clips in two buckets."""
    folder: Path = tmp_path_factory.mktemp("shards")
    return write_shards(folder, {"f005_32x32": 4, "f009_32x48": 3})


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # Several lines per tensor, which pytest would keep.
    logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)
    yield
    torch.set_num_threads(before)
