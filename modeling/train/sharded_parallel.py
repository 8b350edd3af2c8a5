"""Processes hold parts of the network, its average and its optimizer (FSDP2, arXiv:2304.11277).

Weights, gradients' sums and optimizer states stay fp32; a block's weights are gathered, in the
precision of the products, shortly before the block computes, and let go behind it. With several
copies of the network (HSDP) gradients are summed inside a copy, then over the copies.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from modeling.dit import VideoDiT
from modeling.train.data_parallel import DataParallel
from modeling.train.layout import Layout
from modeling.train.parallel import Network


class ShardedParallel(DataParallel):
    """See `Parallel` in parallel.py. `dtype` is that of the products."""

    def __init__(self, device: torch.device, layout: Layout, dtype: torch.dtype) -> None:
        super().__init__(device, layout)
        # A block at a time moves to the device, and leaves a part there.
        self.build_device = torch.device("cpu")
        sizes, names = (layout.num_copies, layout.shard_ranks), ("copy", "shard")
        first = 1 if layout.num_copies == 1 else 0
        self._mesh = init_device_mesh(device.type, sizes[first:], mesh_dim_names=names[first:])
        # What enters a block stays as it is: sigma and the tables of positions are fp32.
        self._precision = MixedPrecisionPolicy(
            param_dtype=dtype,
            reduce_dtype=torch.promote_types(dtype, torch.float32),
            cast_forward_inputs=False,
        )
        self._plain: dict[nn.Module, nn.Module] = {}  # each as it was, without values

    def wrap(self, network: Network) -> Network:
        self.place(network, divide_tokens=True)
        return network

    def place(self, network: nn.Module, *, divide_tokens: bool = False) -> None:
        self._plain[network] = copy.deepcopy(network).to("meta")
        if divide_tokens:
            self._divide_tokens(network)
        if isinstance(network, VideoDiT):
            for block in [*network.double_blocks, *network.single_blocks]:
                fully_shard(block, mesh=self._mesh, mp_policy=self._precision)
        fully_shard(network, mesh=self._mesh, mp_policy=self._precision)

    def accumulate(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        return _synchronized(cast(FSDPModule, network), last=last)

    def clip_grad_norm(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def whole(self, network: Network) -> Network | None:
        values: dict[str, Tensor] = {}
        for name, tensor in network.state_dict().items():
            gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.is_main:
                values[name] = gathered.cpu()
        if not self.is_main:
            return None
        plain = copy.deepcopy(self._plain[network])
        plain.load_state_dict(values, assign=True)
        return cast(Network, plain)


@contextmanager
def _synchronized(network: FSDPModule, *, last: bool) -> Iterator[None]:
    network.set_requires_gradient_sync(last)
    yield
