"""Run by torchrun: gradients of a network with random weights, whole and over the processes.

Arguments: a file for the answers, and layouts as HEADS,CONTEXT_RANKS,SHARD_RANKS. An answer is the
greatest difference of the gradients relative to the greatest gradient, or infinity where weights
do not come back as they were or the network's own attention is not the one that computes.
"""

import copy
import sys
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from modeling.attention import attend
from modeling.dit import DiTConfig, VideoDiT
from modeling.train.data_parallel import DataParallel
from modeling.train.layout import Layout
from modeling.train.sharded_parallel import ShardedParallel

_CPU = torch.device("cpu")


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
    return torch.cat([_whole(p.grad).flatten() for p in network.parameters() if p.grad is not None])


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _answer(parallel: DataParallel, num_heads: int) -> float:
    network = _network(num_heads)
    expected = _gradients(copy.deepcopy(network))
    weights = copy.deepcopy(network.state_dict())
    network.set_gradient_checkpointing(True)
    attention = mock.Mock(wraps=attend)
    network.set_attention(attention)
    wrapped = parallel.wrap(network)
    found = _gradients(wrapped)
    if not attention.called:
        return float("inf")
    difference = (found - expected).abs().max() / expected.abs().max()
    dist.all_reduce(difference, op=dist.ReduceOp.MAX)
    if (whole := parallel.whole(network)) is not None:
        came_back = whole.state_dict()
        for name, tensor in weights.items():
            if not torch.equal(came_back[name], tensor):
                return float("inf")
    return float(difference)


def main() -> None:
    file, *layouts = sys.argv[1:]
    dist.init_process_group("gloo")
    answers = []
    for text in layouts:
        num_heads, context_ranks, shard_ranks = map(int, text.split(","))
        layout = Layout(dist.get_world_size(), context_ranks, shard_ranks)
        parallel = (
            DataParallel(_CPU, layout)
            if shard_ranks == 1
            else ShardedParallel(_CPU, layout, torch.float64)
        )
        answers.append(_answer(parallel, num_heads))
        parallel.close()
    if dist.get_rank() == 0:
        Path(file).write_text("\n".join(map(str, answers)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
