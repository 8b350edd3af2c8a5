"""Averaged weights, in fp32 beside the trained ones."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from modeling.train.config import EmaConfig

Network = TypeVar("Network", bound=nn.Module)


class Ema(Generic[Network]):
    """`network` is a copy of the trained one whose weights follow it."""

    def __init__(self, network: Network, config: EmaConfig) -> None:
        self.config = config
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """After an optimizer step, counted from 0. With `every` n the decay counts n times."""
        every = self.config.every
        if (step + 1) % every:
            return
        decay = min(self.config.decay, (1 + step) / (10 + step)) ** every
        own: list[Tensor] = list(self.network.parameters())
        other: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(own, other, 1 - decay)
