"""Every process has the whole network; gradients are averaged over all processes.

Processes stand as data ranks x context ranks. `rank` and `world_size` count data ranks; the peers
of one data rank have the same samples and share their tokens (context_parallel.py).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from modeling.dit import VideoDiT
from modeling.train.config import TrainConfig
from modeling.train.context_parallel import ContextParallel
from modeling.train.errors import ConfigError
from modeling.train.parallel import Network

# The main process samples and exports alone, while the others wait.
_TIMEOUT = timedelta(hours=1)


def launched_processes() -> int:
    """How many processes the launcher (torchrun, Ray Train) has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def check_layout(config: TrainConfig, num_processes: int) -> None:
    """Raise ConfigError for a layout that cannot be."""
    context = config.parallel.context_ranks
    if num_processes % context:
        raise ConfigError(
            f"parallel.context_ranks = {context} does not divide the {num_processes} processes"
        )
    if context > 1 and config.model != "dit":
        raise ConfigError(
            f"parallel.context_ranks = {context} is for a DiT: a VAE has no tokens to divide"
        )


class DataParallel:
    """See `Parallel` in parallel.py."""

    def __init__(self, device: torch.device, context_ranks: int = 1) -> None:
        self.device = device
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
        self.num_processes = dist.get_world_size()
        self.is_main = dist.get_rank() == 0
        self.world_size = self.num_processes // context_ranks
        self.rank, _ = divmod(dist.get_rank(), context_ranks)
        self._context_ranks = context_ranks
        self._context_group: dist.ProcessGroup | None = None
        for first in range(0, self.num_processes, context_ranks):
            members = list(range(first, first + context_ranks))
            group = dist.new_group(members, timeout=_TIMEOUT)
            if dist.get_rank() in members:
                self._context_group = cast(dist.ProcessGroup, group)

    def wrap(self, network: Network) -> Network:
        if self._context_ranks > 1 and isinstance(network, VideoDiT):
            assert self._context_group is not None
            ContextParallel(network, self._context_group)
        on_gpu = [self.device.index] if self.device.type == "cuda" else None
        wrapped = DistributedDataParallel(network, device_ids=on_gpu, gradient_as_bucket_view=True)
        return cast(Network, wrapped)

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

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.detach()

    def close(self) -> None:
        dist.barrier()
        dist.destroy_process_group()


@contextmanager
def _plain() -> Iterator[None]:
    yield
