"""Rotary position embedding in three dimensions (RoFormer, arXiv:2104.09864).

The channels of a head are split over time, height and width; within a part, adjacent pairs
turn by position * theta^(-2i/dim). Positions are whole numbers from 0. Computed in fp32, as the
released model was trained.

Shape suffixes: B batch, H heads, N tokens, E channels of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class RopeTable(NamedTuple):
    cos_NE: Tensor
    sin_NE: Tensor


def rope_table(
    grid_THW: tuple[int, int, int],
    axes_dim: tuple[int, int, int],
    *,
    theta: float,
    device: torch.device | None = None,
) -> RopeTable:
    """Cosines and sines for the tokens of a grid in row-major (T, H, W) order, fp32."""
    positions = [torch.arange(size, dtype=torch.float32, device=device) for size in grid_THW]
    axes = torch.meshgrid(*positions, indexing="ij")
    angles = [
        torch.outer(axis.flatten(), _frequencies(dim, theta, device))
        for axis, dim in zip(axes, axes_dim, strict=True)
    ]
    angle_NE = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)
    return RopeTable(angle_NE.cos(), angle_NE.sin())


def _frequencies(dim: int, theta: float, device: torch.device | None) -> Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    return 1.0 / theta**exponents


def apply_rope(x_BHNE: Tensor, table: RopeTable) -> Tensor:
    """Turn the first tokens of `x`, as many as the table has; the tokens after them stay.

    Half precision is computed in fp32 and rounded once.
    """
    num_turned = table.cos_NE.shape[0]
    turned, rest = x_BHNE[:, :, :num_turned], x_BHNE[:, :, num_turned:]
    even, odd = turned[..., 0::2], turned[..., 1::2]
    swapped = torch.stack([-odd, even], dim=-1).flatten(-2)
    turned = (turned * table.cos_NE + swapped * table.sin_NE).to(x_BHNE.dtype)
    return torch.cat([turned, rest], dim=2) if rest.shape[2] else turned
