"""How a run spreads over processes. One process is the simplest case of it.

The trainer knows nothing but this interface: it hands over its networks before it makes the
optimizers, calls them through what it gets back, and asks for sums over ranks where it logs,
clips, guards and stops.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Parallel(Protocol):
    """Ranks with a part of each batch. Collective calls are made by all ranks, in one order."""

    rank: int
    world_size: int
    num_processes: int  # more than world_size where several share a data rank
    is_main: bool  # the one process that logs, samples and exports
    device: torch.device
    build_device: torch.device  # where a network to wrap is made; wrapping moves it to `device`

    def wrap(self, network: Network) -> Network:
        """Called once per trained network, on `build_device`, before its optimizer is made.

        What comes back is called in the forward pass. It may be another module (DDP) or the same
        with sharded parameters (FSDP2); names and values of the parameters stay.
        """
        ...

    def place(self, network: nn.Module) -> None:
        """Lay out the average of a wrapped network as that network is laid out."""
        ...

    def accumulate(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch; gradients are reduced at the last."""
        ...

    def grad_scale(self) -> float:
        """What a loss (a sum over the global batch) is multiplied with before backward.

        The world size where gradients are averaged over ranks, 1 where they are summed.
        """
        ...

    def clip_grad_norm(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """The norm over all ranks, before clipping."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks of a small tensor, on every rank."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        ...

    def barrier(self) -> None: ...

    def whole(self, network: Network) -> Network | None:
        """A network that the main process can use alone; elsewhere it may be None.

        Where networks are sharded this gathers a copy, on the CPU: a collective call.
        """
        ...

    def close(self) -> None: ...


class SingleProcess:
    """One process, one device."""

    rank = 0
    world_size = 1
    num_processes = 1
    is_main = True

    def __init__(self, device: torch.device) -> None:
        self.device = self.build_device = device

    def wrap(self, network: Network) -> Network:
        return network

    def place(self, network: nn.Module) -> None:
        del network

    def accumulate(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        del network, last
        return nullcontext()

    def grad_scale(self) -> float:
        return 1.0

    def clip_grad_norm(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def sum(self, values: Tensor) -> Tensor:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None:
        pass

    def whole(self, network: Network) -> Network | None:
        return network

    def close(self) -> None:
        pass
