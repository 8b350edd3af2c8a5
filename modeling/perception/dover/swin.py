"""The technical branch: a Swin-3D-tiny (arXiv 2106.13230) whose bias knows about fragments.

Two positions of a window may come from fragments that lay apart in the source. The attention bias
between them is g R + (1 - g) F with two tables R and F. The paper has g as 0 or 1; the released
weights were trained with the number of fragments, rows plus columns, between the two.

Shape letters as in windows.py; B clips, C channels, A heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.dover.windows import NUM_OFFSETS, WINDOW_THW, Windows, offset_rows

DEPTHS = (2, 2, 6, 2)
WIDTHS = (96, 192, 384, 768)
_HEAD_WIDTH = 32
_MLP_RATIO = 4
_SEPARATED = -100.0  # added between positions that were no neighbors
_PATCH_THW = (2, 4, 4)


class SwinBackbone(nn.Module):
    """x_BCTHW -> B x 768 x T/2 x 7 x 7; pictures of 224 x 224, T a multiple of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed()
        self.layers = nn.ModuleList(_Stage(index) for index in range(len(DEPTHS)))
        self.norm = nn.LayerNorm(WIDTHS[-1])
        self.register_buffer("offset_rows_PP", offset_rows(), persistent=False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        # A zero that only the input tells: a runtime that knew the biases beforehand would keep
        # gigabytes of them.
        zero = (x_BCTHW[0, 0, 0, 0, 0] * 0).long()
        rows_PP: Tensor = self.get_buffer("offset_rows_PP") + zero
        x_BTHWC = self.patch_embed(x_BCTHW)
        for stage in self.layers:
            x_BTHWC = stage(x_BTHWC, rows_PP)
        normed: Tensor = self.norm(x_BTHWC)
        return normed.permute(0, 4, 1, 2, 3)


class _PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, WIDTHS[0], _PATCH_THW, stride=_PATCH_THW)
        self.norm = nn.LayerNorm(WIDTHS[0])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        embedded: Tensor = self.norm(self.proj(x_BCTHW).permute(0, 2, 3, 4, 1))
        return embedded


class _Stage(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        is_last = index == len(DEPTHS) - 1
        width = WIDTHS[index]
        self.blocks = nn.ModuleList(
            _Block(width, shifted=number % 2 == 1, gated=not is_last)
            for number in range(DEPTHS[index])
        )
        self.downsample = None if is_last else _Merge(width)

    def forward(self, x_BTHWC: Tensor, rows_PP: Tensor) -> Tensor:
        for block in self.blocks:
            x_BTHWC = block(x_BTHWC, rows_PP)
        return x_BTHWC if self.downsample is None else self.downsample(x_BTHWC)


class _Block(nn.Module):
    def __init__(self, width: int, *, shifted: bool, gated: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width, gated=gated)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _MLP(width)

    def forward(self, x_BTHWC: Tensor, rows_PP: Tensor) -> Tensor:
        _, time, height, width, _ = x_BTHWC.shape
        windows = Windows.over((time, height, width), shifted=self.shifted)
        seen_BKSPC = self.attn(windows.divide(self.norm1(x_BTHWC)), windows, rows_PP)
        x_BTHWC = x_BTHWC + windows.join(seen_BKSPC)
        mixed: Tensor = self.mlp(self.norm2(x_BTHWC))
        return x_BTHWC + mixed


class _Attention(nn.Module):
    def __init__(self, width: int, *, gated: bool) -> None:
        super().__init__()
        self.num_heads = width // _HEAD_WIDTH
        table = torch.zeros(NUM_OFFSETS, self.num_heads)
        self.relative_position_bias_table = nn.Parameter(table)
        self.fragment_position_bias_table: nn.Parameter | None = None
        if gated:
            self.fragment_position_bias_table = nn.Parameter(table.clone())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BKSPC: Tensor, windows: Windows, rows_PP: Tensor) -> Tensor:
        split = self.qkv(x_BKSPC).unflatten(-1, (3, self.num_heads, _HEAD_WIDTH))
        q, k, v = split.permute(4, 0, 1, 2, 5, 3, 6).unbind(0)  # each B K S A P D
        logits = (q * _HEAD_WIDTH**-0.5) @ k.transpose(-2, -1)
        logits = logits + self._bias(windows, rows_PP)
        if windows.is_shifted:
            region = windows.regions().to(logits.device)
            apart = region[..., :, None] != region[..., None, :]
            logits = logits + (_SEPARATED * apart.to(logits.dtype))[:, :, None]
        seen = (logits.softmax(-1) @ v).transpose(-3, -2).flatten(-2)
        out: Tensor = self.proj(seen)
        return out

    def _bias(self, windows: Windows, rows_PP: Tensor) -> Tensor:
        """S x A x P x P, or A x P x P without fragments."""
        relative = self.relative_position_bias_table[rows_PP].permute(2, 0, 1)
        if self.fragment_position_bias_table is None:
            return relative
        fragment = self.fragment_position_bias_table[rows_PP].permute(2, 0, 1)
        place = windows.fragment_rows_and_columns().to(relative.device)
        apart = (place[:, :, None] - place[:, None]).abs().sum(-1)  # S x P' x P'
        times, per_time = WINDOW_THW[0], WINDOW_THW[1] * WINDOW_THW[2]
        shape = (-1, times, per_time, times, per_time)
        difference = (relative - fragment).reshape(shape)[None]
        gated = apart[:, None, None, :, None, :] * difference + fragment.reshape(shape)[None]
        return gated.reshape(-1, *relative.shape)


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Merge(nn.Module):
    """Halve height and width: four neighbors become one position of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        corners = [x_BTHWC[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return out
