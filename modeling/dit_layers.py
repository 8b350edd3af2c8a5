"""The layers of the video DiT. Attribute names give the keys of the released checkpoint.

A modulation turns the conditioning vector into shift, scale and gate; a residual branch is
`x + gate * f(norm(x) * (1 + scale) + shift)`. Modulations and the last layer start at zero, so a
fresh block is the identity and a fresh network's output is 0.

Shape suffixes: B batch, N image tokens, L text tokens, D width, H heads, E channels of a head,
C latent channels, T frames, H height, W width (after T).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import Attention, attend
from modeling.block_operations import (
    NORM_EPS,
    PLAIN,
    BlockOperations,
    merge_heads,
    norm_modulate,
    split_heads,
)
from modeling.dit_config import DiTConfig
from modeling.rope import RopeTable

_NUM_FREQUENCIES = 128
_MAX_PERIOD = 10000.0


def sinusoidal_embedding(value_B: Tensor, num_frequencies: int = _NUM_FREQUENCIES) -> Tensor:
    """(B, 2 * num_frequencies) in fp32: cosines, then sines, of value * 10000^(-i / n)."""
    exponents = torch.arange(num_frequencies, dtype=torch.float32, device=value_B.device)
    frequencies = torch.exp(-math.log(_MAX_PERIOD) * exponents / num_frequencies)
    angle_BF = value_B.float()[:, None] * frequencies
    return torch.cat([angle_BF.cos(), angle_BF.sin()], dim=1)


class ScalarEmbedder(nn.Module):
    """A number per sample (sigma * 1000, guidance * 1000) to a vector of the model's width."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * _NUM_FREQUENCIES, hidden_size),
            nn.SiLU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def forward(self, value_B: Tensor) -> Tensor:
        dtype = cast(nn.Linear, self.mlp[0]).weight.dtype
        return cast(Tensor, self.mlp(sinusoidal_embedding(value_B).to(dtype)))


class VectorEmbedder(nn.Module):
    """The pooled prompt vector to the model's width."""

    def __init__(self, in_features: int, hidden_size: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_features, hidden_size)
        self.out_layer = nn.Linear(hidden_size, hidden_size)

    def forward(self, pooled_BD: Tensor) -> Tensor:
        return cast(Tensor, self.out_layer(F.silu(self.in_layer(pooled_BD))))


class PatchEmbedder(nn.Module):
    """Patchify: a strided convolution, then tokens in row-major (T, H, W) order."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        patch = config.patch
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, patch, stride=patch)

    def forward(self, latent_BCTHW: Tensor) -> Tensor:
        tokens_BDTHW = self.proj(latent_BCTHW)
        return cast(Tensor, tokens_BDTHW.flatten(2).transpose(1, 2))


class MLP(nn.Module):
    def __init__(self, hidden_size: int, mlp_size: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, mlp_size)
        self.act = activation
        self.fc2 = nn.Linear(mlp_size, hidden_size)

    def forward(self, x_BND: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(self.act(self.fc1(x_BND))))


class Modulation(nn.Module):
    """`num_chunks` vectors per sample from the conditioning vector, each (B, 1, D)."""

    def __init__(self, hidden_size: int, num_chunks: int) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        self.linear = nn.Linear(hidden_size, num_chunks * hidden_size)

    def forward(self, vec_BD: Tensor) -> tuple[Tensor, ...]:
        chunks_BKD: Tensor = self.linear(F.silu(vec_BD)).unsqueeze(1)
        return chunks_BKD.chunk(self.num_chunks, dim=-1)


def rms_norm(head_dim: int) -> nn.RMSNorm:
    """The norm of queries and keys, per head."""
    return nn.RMSNorm(head_dim, eps=NORM_EPS)


class DoubleBlock(nn.Module):
    """Image and text with weights of their own and one attention over both."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, head_dim = config.hidden_size, config.attention_head_dim
        self.num_heads = config.num_attention_heads
        self.attention: Attention = attend
        self.operations: BlockOperations = PLAIN

        self.img_mod = Modulation(width, 6)
        self.img_attn_qkv = nn.Linear(width, 3 * width)
        self.img_attn_q_norm = rms_norm(head_dim)
        self.img_attn_k_norm = rms_norm(head_dim)
        self.img_attn_proj = nn.Linear(width, width)
        self.img_mlp = MLP(width, config.mlp_size, nn.GELU(approximate="tanh"))

        self.txt_mod = Modulation(width, 6)
        self.txt_attn_qkv = nn.Linear(width, 3 * width)
        self.txt_attn_q_norm = rms_norm(head_dim)
        self.txt_attn_k_norm = rms_norm(head_dim)
        self.txt_attn_proj = nn.Linear(width, width)
        self.txt_mlp = MLP(width, config.mlp_size, nn.GELU(approximate="tanh"))

    def forward(
        self,
        image_BND: Tensor,
        text_BLD: Tensor,
        vec_BD: Tensor,
        rope: RopeTable,
        num_valid_B: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        i_shift1, i_scale1, i_gate1, i_shift2, i_scale2, i_gate2 = self.img_mod(vec_BD)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec_BD)
        op = self.operations

        q, k, v = op.join_streams(
            self.img_attn_qkv(op.norm_modulate(image_BND, i_shift1, i_scale1)),
            self.txt_attn_qkv(op.norm_modulate(text_BLD, t_shift1, t_scale1)),
            (self.img_attn_q_norm, self.img_attn_k_norm),
            (self.txt_attn_q_norm, self.txt_attn_k_norm),
            self.num_heads,
            rope,
        )
        mixed = merge_heads(self.attention(q, k, v, num_valid_B))
        i_mixed, t_mixed = mixed.tensor_split([image_BND.shape[1]], dim=1)

        image_BND, i_hidden = op.gated_add_norm(
            image_BND, i_gate1, self.img_attn_proj(i_mixed), i_shift2, i_scale2
        )
        text_BLD, t_hidden = op.gated_add_norm(
            text_BLD, t_gate1, self.txt_attn_proj(t_mixed), t_shift2, t_scale2
        )
        image_BND = op.gated_add(image_BND, i_gate2, self.img_mlp(i_hidden))
        text_BLD = op.gated_add(text_BLD, t_gate2, self.txt_mlp(t_hidden))
        return image_BND, text_BLD


class SingleBlock(nn.Module):
    """All tokens, image first; attention and MLP side by side between two linear layers."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, head_dim = config.hidden_size, config.attention_head_dim
        self.num_heads = config.num_attention_heads
        self.attention: Attention = attend
        self.operations: BlockOperations = PLAIN
        self.split_sizes = [2 * width, width, config.mlp_size]
        self.modulation = Modulation(width, 3)
        self.linear1 = nn.Linear(width, sum(self.split_sizes))
        self.linear2 = nn.Linear(width + config.mlp_size, width)
        self.q_norm = rms_norm(head_dim)
        self.k_norm = rms_norm(head_dim)

    def forward(
        self, x_BND: Tensor, vec_BD: Tensor, rope: RopeTable, num_valid_B: Tensor | None
    ) -> Tensor:
        shift, scale, gate = self.modulation(vec_BD)
        op = self.operations
        hidden = self.linear1(op.norm_modulate(x_BND, shift, scale))
        qk, v, mlp = hidden.split(self.split_sizes, dim=-1)
        q, k = op.turn_heads(qk, (self.q_norm, self.k_norm), self.num_heads, rope)
        v = split_heads(v, self.num_heads)
        mixed = merge_heads(self.attention(q, k, v, num_valid_B))
        branches = torch.cat([mixed, F.gelu(mlp, approximate="tanh")], dim=-1)
        return op.gated_add(x_BND, gate, self.linear2(branches))


class FinalLayer(nn.Module):
    """Tokens to the velocity of their patches."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.patch_THW = config.patch
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, math.prod(self.patch_THW) * config.out_channels)

    def forward(self, image_BND: Tensor, vec_BD: Tensor, grid_THW: tuple[int, int, int]) -> Tensor:
        shift, scale = self.adaLN_modulation(vec_BD).unsqueeze(1).chunk(2, dim=-1)
        patches = self.linear(norm_modulate(image_BND, shift, scale))
        return unpatchify(patches, grid_THW, self.patch_THW)


def unpatchify(
    patches_BND: Tensor, grid_THW: tuple[int, int, int], patch_THW: tuple[int, int, int]
) -> Tensor:
    """(B, N, C * pt * ph * pw), channel slowest, to (B, C, T, H, W)."""
    b = patches_BND.shape[0]
    (t, h, w), (pt, ph, pw) = grid_THW, patch_THW
    patches = patches_BND.reshape(b, t, h, w, -1, pt, ph, pw)
    return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, -1, t * pt, h * ph, w * pw)
