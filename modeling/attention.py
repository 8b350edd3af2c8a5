"""Attention over token rows whose valid tokens come first.

Shape suffixes: B batch, H heads, N tokens, E channels of a head.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


class Attention(Protocol):
    """What a block calls. A parallel trainer may put its own in place (`set_attention`)."""

    def __call__(
        self, q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, num_valid_B: Tensor | None, /
    ) -> Tensor: ...


def attend(q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, num_valid_B: Tensor | None) -> Tensor:
    """Full attention among the first `num_valid_B` tokens of each row; None: all are valid.

    Without `num_valid_B` no mask tensor exists. The output at tokens beyond is meaningless.
    """
    if num_valid_B is None:
        return F.scaled_dot_product_attention(q_BHNE, k_BHNE, v_BHNE)
    position_N = torch.arange(k_BHNE.shape[2], device=k_BHNE.device)
    key_mask = (position_N < num_valid_B[:, None])[:, None, None, :]
    return F.scaled_dot_product_attention(q_BHNE, k_BHNE, v_BHNE, attn_mask=key_mask)


def attend_by(unmasked: Sequence[SDPBackend], masked: Sequence[SDPBackend]) -> Attention:
    """`attend` by the first of these backends that takes a call; one list for each kind of call."""
    return partial(_attend_by, list(unmasked), list(masked))


def _attend_by(
    unmasked: list[SDPBackend],
    masked: list[SDPBackend],
    q_BHNE: Tensor,
    k_BHNE: Tensor,
    v_BHNE: Tensor,
    num_valid_B: Tensor | None,
) -> Tensor:
    with sdpa_kernel(unmasked if num_valid_B is None else masked, set_priority=True):
        return attend(q_BHNE, k_BHNE, v_BHNE, num_valid_B)
