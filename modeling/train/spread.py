"""The implementation of `Parallel` that a layout asks for."""

import torch

from modeling.train.data_parallel import DataParallel
from modeling.train.layout import Layout
from modeling.train.parallel import Parallel, SingleProcess
from modeling.train.sharded_parallel import ShardedParallel


def make_parallel(layout: Layout, device: torch.device, dtype: torch.dtype) -> Parallel:
    """On every process at once. `dtype` is that of the products."""
    if layout.num_processes == 1:
        return SingleProcess(device)
    if layout.shard_ranks == 1:
        return DataParallel(device, layout)
    return ShardedParallel(device, layout, dtype)
