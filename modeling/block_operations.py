"""What a DiT block does between its matrix products, in plain PyTorch.

`PLAIN` is the definition and the default; `modeling.kernels` has the same operations as GPU kernels
of their own. A block calls whatever it holds.

Shape suffixes: B batch, N image tokens, L text tokens, T = N + L, D width, H heads, E channels of a
head.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.rope import RopeTable, apply_rope

NORM_EPS = 1e-6

QkNorms = tuple[nn.RMSNorm, nn.RMSNorm]


class NormModulate(Protocol):
    def __call__(self, x_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor, /) -> Tensor: ...


class GatedAdd(Protocol):
    def __call__(self, x_BND: Tensor, gate_B1D: Tensor, y_BND: Tensor, /) -> Tensor: ...


class GatedAddNorm(Protocol):
    def __call__(
        self, x_BND: Tensor, gate_B1D: Tensor, y_BND: Tensor, shift: Tensor, scale: Tensor, /
    ) -> tuple[Tensor, Tensor]: ...


class TurnHeads(Protocol):
    def __call__(
        self, qk_BTX: Tensor, norms: QkNorms, num_heads: int, rope: RopeTable, /
    ) -> tuple[Tensor, Tensor]: ...


class JoinStreams(Protocol):
    def __call__(
        self,
        image_BNX: Tensor,
        text_BLX: Tensor,
        image_norms: QkNorms,
        text_norms: QkNorms,
        num_heads: int,
        rope: RopeTable,
        /,
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class BlockOperations(NamedTuple):
    norm_modulate: NormModulate
    gated_add: GatedAdd
    gated_add_norm: GatedAddNorm
    turn_heads: TurnHeads
    join_streams: JoinStreams


def layer_norm(x_BND: Tensor) -> Tensor:
    """Layer norm without weights; scale and shift come from the modulation."""
    return F.layer_norm(x_BND, x_BND.shape[-1:], eps=NORM_EPS)


def norm_modulate(x_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    return layer_norm(x_BND) * (1 + scale_B1D) + shift_B1D


def gated_add(x_BND: Tensor, gate_B1D: Tensor, y_BND: Tensor) -> Tensor:
    return x_BND + gate_B1D * y_BND


def gated_add_norm(
    x_BND: Tensor, gate_B1D: Tensor, y_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum, and its norm as the next branch takes it."""
    x_BND = gated_add(x_BND, gate_B1D, y_BND)
    return x_BND, norm_modulate(x_BND, shift_B1D, scale_B1D)


def split_heads(x_BND: Tensor, num_heads: int) -> Tensor:
    b, n, width = x_BND.shape
    return x_BND.reshape(b, n, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x_BHNE: Tensor) -> Tensor:
    return x_BHNE.transpose(1, 2).flatten(2)


def turn_heads(
    qk_BTX: Tensor, norms: QkNorms, num_heads: int, rope: RopeTable
) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, H, T, E) from both side by side, normed, the image tokens turned."""
    q, k = (split_heads(x, num_heads) for x in qk_BTX.chunk(2, dim=-1))
    return apply_rope(norms[0](q), rope), apply_rope(norms[1](k), rope)


def join_streams(
    image_BNX: Tensor,
    text_BLX: Tensor,
    image_norms: QkNorms,
    text_norms: QkNorms,
    num_heads: int,
    rope: RopeTable,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, T, E) of all tokens, image first; X is three widths."""
    i_q, i_k, i_v = (split_heads(x, num_heads) for x in image_BNX.chunk(3, dim=-1))
    i_q, i_k = apply_rope(image_norms[0](i_q), rope), apply_rope(image_norms[1](i_k), rope)
    t_q, t_k, t_v = (split_heads(x, num_heads) for x in text_BLX.chunk(3, dim=-1))
    t_q, t_k = text_norms[0](t_q), text_norms[1](t_k)
    q, k, v = (torch.cat(pair, dim=2) for pair in ((i_q, t_q), (i_k, t_k), (i_v, t_v)))
    return q, k, v


PLAIN = BlockOperations(norm_modulate, gated_add, gated_add_norm, turn_heads, join_streams)
