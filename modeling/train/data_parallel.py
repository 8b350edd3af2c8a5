"""Every process has the whole network; gradients are averaged over all processes.

Processes stand as data ranks x context ranks. `rank` and `world_size` count data ranks; the peers
of one data rank have the same samples and share their tokens (context_parallel.py).
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from modeling.dit import VideoDiT
from modeling.train.context_parallel import ContextParallel
from modeling.train.errors import ConfigError
from modeling.train.layout import Layout
from modeling.train.parallel import Network

# The main process samples and exports alone, while the others wait.
TIMEOUT = timedelta(hours=1)


class DataParallel:
    """See `Parallel` in parallel.py."""

    def __init__(self, device: torch.device, layout: Layout) -> None:
        self.device = self.build_device = device
        # Ray Train makes the processes' group, and ends it.
        self._owns_group = not dist.is_initialized()
        if self._owns_group:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        if dist.get_world_size() != layout.num_processes:
            raise ConfigError(
                f"the launcher promised {layout.num_processes} processes and started "
                f"{dist.get_world_size()}"
            )
        self.num_processes = layout.num_processes
        self.is_main = dist.get_rank() == 0
        self.world_size = layout.data_ranks
        self.rank, _ = divmod(dist.get_rank(), layout.context_ranks)
        self._context_ranks = layout.context_ranks
        self._context_group: dist.ProcessGroup | None = None
        if layout.context_ranks == 1:
            return
        for first in range(0, self.num_processes, layout.context_ranks):
            members = list(range(first, first + layout.context_ranks))
            group = dist.new_group(members, timeout=TIMEOUT)
            if dist.get_rank() in members:
                self._context_group = cast(dist.ProcessGroup, group)

    def wrap(self, network: Network) -> Network:
        self._divide_tokens(network)
        on_gpu = [self.device.index] if self.device.type == "cuda" else None
        wrapped = DistributedDataParallel(network, device_ids=on_gpu, gradient_as_bucket_view=True)
        return cast(Network, wrapped)

    def _divide_tokens(self, network: nn.Module) -> None:
        if self._context_group is not None and isinstance(network, VideoDiT):
            ContextParallel(network, self._context_group)

    def place(self, network: nn.Module) -> None:
        del network

    def accumulate(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        if not isinstance(network, DistributedDataParallel):
            return self._average_after(network, last=last)
        return _plain() if last else cast(AbstractContextManager[None], network.no_sync())

    @contextmanager
    def _average_after(self, network: nn.Module, *, last: bool) -> Iterator[None]:
        yield
        if not last:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.num_processes
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def grad_scale(self) -> float:
        return float(self.world_size)

    def clip_grad_norm(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def sum(self, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed / self._context_ranks

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def barrier(self) -> None:
        dist.barrier()

    def whole(self, network: Network) -> Network | None:
        return network

    def close(self) -> None:
        dist.barrier()
        if self._owns_group:
            dist.destroy_process_group()
        elif self._context_group is not None:
            dist.destroy_process_group(self._context_group)


@contextmanager
def _plain() -> Iterator[None]:
    yield
