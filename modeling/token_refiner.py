"""The text side's entrance: prompt tokens, refined by two bidirectional blocks.

A causal language model's states know the past only; these blocks let every prompt token see
the whole prompt. Gated by the timestep and the mean of the prompt. Keys as in the released model.

Shape suffixes: B batch, L text tokens, D width.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import attend
from modeling.block_operations import merge_heads, split_heads
from modeling.dit_config import DiTConfig
from modeling.dit_layers import MLP, ScalarEmbedder

_NORM_EPS = 1e-6


class PromptEmbedder(nn.Module):
    """The mean of the prompt's tokens to the model's width."""

    def __init__(self, in_features: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_features, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, mean_BD: Tensor) -> Tensor:
        return cast(Tensor, self.linear_2(F.silu(self.linear_1(mean_BD))))


class RefinerBlock(nn.Module):
    """Self-attention and MLP, each behind a gate; no QK-norm and no positions."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.self_attn_qkv = nn.Linear(width, 3 * width)
        self.self_attn_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = MLP(width, config.mlp_size, nn.SiLU())
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x_BLD: Tensor, vec_BD: Tensor, num_valid_B: Tensor | None) -> Tensor:
        gate_attention, gate_mlp = self.adaLN_modulation(vec_BD).unsqueeze(1).chunk(2, dim=-1)
        qkv = self.self_attn_qkv(self.norm1(x_BLD))
        q, k, v = (split_heads(x, self.num_heads) for x in qkv.chunk(3, dim=-1))
        mixed = merge_heads(attend(q, k, v, num_valid_B))
        x_BLD = x_BLD + gate_attention * self.self_attn_proj(mixed)
        return cast(Tensor, x_BLD + gate_mlp * self.mlp(self.norm2(x_BLD)))


class RefinerBlocks(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(config) for _ in range(config.num_refiner_layers))


class TokenRefiner(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.input_embedder = nn.Linear(config.text_embed_dim, config.hidden_size)
        self.t_embedder = ScalarEmbedder(config.hidden_size)
        self.c_embedder = PromptEmbedder(config.text_embed_dim, config.hidden_size)
        self.individual_token_refiner = RefinerBlocks(config)

    def forward(self, text_BLD: Tensor, timestep_B: Tensor, num_valid_B: Tensor | None) -> Tensor:
        """Text of the model's width. timestep_B is sigma * 1000; None: all tokens are valid."""
        vec_BD = self.t_embedder(timestep_B) + self.c_embedder(masked_mean(text_BLD, num_valid_B))
        x_BLD = self.input_embedder(text_BLD)
        for block in self.individual_token_refiner.blocks:
            x_BLD = block(x_BLD, vec_BD, num_valid_B)
        return cast(Tensor, x_BLD)


def masked_mean(text_BLD: Tensor, num_valid_B: Tensor | None) -> Tensor:
    """Mean over the first `num_valid_B` tokens of each row."""
    if num_valid_B is None:
        return text_BLD.mean(dim=1)
    position_L = torch.arange(text_BLD.shape[1], device=text_BLD.device)
    valid_BL1 = (position_L < num_valid_B[:, None])[:, :, None]
    total_BD = text_BLD.masked_fill(~valid_BL1, 0).sum(dim=1)
    return total_BD / num_valid_B[:, None].to(text_BLD.dtype)
