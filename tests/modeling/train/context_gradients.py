"""Run by torchrun: gradients of a network with random weights, whole and over the processes.

Arguments: the number of heads, and a file for the greatest difference of the gradients relative to
the greatest gradient.
"""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.dit import DiTConfig, VideoDiT
from modeling.train.data_parallel import DataParallel


def _network(num_heads: int) -> VideoDiT:
    torch.manual_seed(0)
    network = VideoDiT(
        DiTConfig(
            in_channels=4,
            out_channels=4,
            num_attention_heads=num_heads,
            attention_head_dim=8,
            rope_axes_dim=(2, 2, 4),
            num_layers=2,
            num_single_layers=2,
            num_refiner_layers=1,
            guidance_embeds=False,
            text_embed_dim=6,
            pooled_projection_dim=5,
        )
    ).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


def _gradients(network: nn.Module) -> Tensor:
    torch.manual_seed(1)
    latent = torch.randn(2, 4, 3, 6, 10, dtype=torch.float64)  # 45 tokens: odd
    lengths = torch.tensor([3, 5])
    text, pooled = torch.randn(2, 5, 6).double(), torch.randn(2, 5).double()
    predicted = network(latent, torch.tensor([0.3, 0.8]), text, lengths, pooled)
    torch.autograd.backward((predicted * torch.randn_like(predicted)).sum())
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def main() -> None:
    num_heads, answer = int(sys.argv[1]), Path(sys.argv[2])
    network = _network(num_heads)
    expected = _gradients(copy.deepcopy(network))
    parallel = DataParallel(torch.device("cpu"), context_ranks=2)
    network.set_gradient_checkpointing(True)
    found = _gradients(parallel.wrap(network))
    difference = (found - expected).abs().max() / expected.abs().max()
    dist.all_reduce(difference, op=dist.ReduceOp.MAX)
    if parallel.is_main:
        answer.write_text(str(difference.item()))
    parallel.close()


if __name__ == "__main__":
    main()
