"""Muon for the convolutions, Adam for the rest, float32 weights behind a bfloat16 network.

Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) replaces a matrix's momentum by the
nearest orthogonal matrix, found by five Newton-Schulz steps; a convolution counts as the matrix
out x (in * taps). Updates are scaled to Adam's usual size (arXiv:2502.16982, section 2.2), so that
one rate serves both.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

LossFunction = Callable[[Tensor], dict[str, Tensor]]  # a batch to named losses, one "total"

_MOMENTUM = 0.95
_ADAM_SHARE = 0.5  # of the rate, for what Muon does not train
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(batch_BRC: Tensor) -> Tensor:
    """Matrices with about the same singular vectors and singular values near one."""
    a, b, c = _COEFFICIENTS
    dtype = torch.bfloat16 if batch_BRC.is_cuda else torch.float32
    x = (batch_BRC / (batch_BRC.norm(dim=(1, 2), keepdim=True) + 1e-12)).to(dtype)
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if is_tall else x).float()
    return result


class MuonAdam:
    """Steps `weights` by `gradients`, both lists in the order of the network's parameters."""

    def __init__(self, network: nn.Module) -> None:
        named = list(network.named_parameters())
        self._weights = [weight for _, weight in named]
        self._by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        self._others: list[int] = []
        for number, (name, weight) in enumerate(named):
            if weight.ndim == 5 and "conv_in" not in name and "conv_out" not in name:
                self._by_shape[weight.shape].append(number)
            else:
                self._others.append(number)
        self._momenta = {
            shape: torch.zeros(len(n), shape[0], shape[1:].numel(), device=self._weights[0].device)
            for shape, n in self._by_shape.items()
        }
        self._adam = torch.optim.Adam([self._weights[n] for n in self._others], betas=(0.9, 0.99))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """`gradients` may be in another precision."""
        for number in self._others:
            self._weights[number].grad = gradients[number].float()
        self._adam.param_groups[0]["lr"] = rate * _ADAM_SHARE
        self._adam.step()
        for shape, numbers in self._by_shape.items():
            stacked = torch.stack([gradients[n].reshape(shape[0], -1).float() for n in numbers])
            momentum = self._momenta[shape].lerp_(stacked, 1 - _MOMENTUM)
            update = orthogonalized(stacked.lerp_(momentum, _MOMENTUM))
            size = 0.2 * max(update.shape[1:]) ** 0.5
            torch._foreach_add_(
                [self._weights[n] for n in numbers],
                [u.view(shape) for u in update.unbind()],
                alpha=-rate * size,
            )


class Graphed:
    """One training step's gradients for inputs of one shape, replayed as a CUDA graph."""

    def __init__(self, network: nn.Module, losses: LossFunction, example: Tensor) -> None:
        self._input = example.clone()
        parameters = list(network.parameters())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # chooses kernels, compiles
            for _ in range(3):
                network.zero_grad()
                torch.autograd.backward(losses(self._input)["total"])
        torch.cuda.current_stream().wait_stream(stream)
        network.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = losses(self._input)
            torch.autograd.backward(self._losses["total"])
        self._gradients = [cast(Tensor, p.grad) for p in parameters]

    def __call__(self, video: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        self._input.copy_(video)
        self._graph.replay()
        return self._losses, self._gradients
