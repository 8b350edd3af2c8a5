"""ConvNeXt (arXiv 2201.03545) over time: DOVER's aesthetic branch, and both of DOVER-Mobile.

The mobile one has V2's response normalization (arXiv 2301.00808) instead of a scale per layer.
The released code takes its norm over time and height, as if video were a picture; so do we.

Shape letters: B clips, C channels, T, H, W positions.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY_DEPTHS, TINY_WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)
FEMTO_DEPTHS, FEMTO_WIDTHS = (2, 2, 6, 2), (48, 96, 192, 384)
_KERNEL_PX = 7
_TIME_KERNELS = (1, 3, 1)  # by the number of the block in its stage
_STEM_THW = (2, 4, 4)
_HALVE_THW = (1, 2, 2)
_EPSILON = 1e-6
_NUM_CLASSES = 1000


class ConvNextBackbone(nn.Module):
    """x_BCTHW -> B x width x T/2 x H/32 x W/32."""

    def __init__(
        self, depths: tuple[int, ...], widths: tuple[int, ...], *, is_second: bool
    ) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv3d(3, widths[0], _STEM_THW, stride=_STEM_THW), _ChannelNorm(widths[0])
        )
        halvings = (
            nn.Sequential(_ChannelNorm(first), nn.Conv3d(first, then, _HALVE_THW, _HALVE_THW))
            for first, then in pairwise(widths)
        )
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    _Block(width, time_kernel=_TIME_KERNELS[number % 3], is_second=is_second)
                    for number in range(depth)
                )
            )
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=_EPSILON)
        if is_second:
            self.head = nn.Linear(widths[-1], _NUM_CLASSES)  # unused, but in the released file

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x_BCTHW = stage(downsample(x_BCTHW))
        normed: Tensor = self.norm(x_BCTHW.permute(0, 2, 3, 4, 1))
        return normed.permute(0, 4, 1, 2, 3)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of B x C x T x H x W."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=_EPSILON)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return super().forward(x_BCTHW.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class _Block(nn.Module):
    def __init__(self, width: int, *, time_kernel: int, is_second: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(
            width,
            width,
            (time_kernel, _KERNEL_PX, _KERNEL_PX),
            padding=(time_kernel // 2, _KERNEL_PX // 2, _KERNEL_PX // 2),
            groups=width,
        )
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.grn: _ResponseNorm | None = None
        self.gamma: nn.Parameter | None = None
        if is_second:
            self.grn = _ResponseNorm(4 * width)
        else:
            self.gamma = nn.Parameter(torch.full((width,), _EPSILON))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BTHWC = self.norm(self.dwconv(x_BCTHW).permute(0, 2, 3, 4, 1))
        hidden = F.gelu(self.pwconv1(x_BTHWC))
        if self.grn is not None:
            hidden = self.grn(hidden)
        out_BTHWC = self.pwconv2(hidden)
        if self.gamma is not None:
            out_BTHWC = self.gamma * out_BTHWC
        out: Tensor = x_BCTHW + out_BTHWC.permute(0, 4, 1, 2, 3)
        return out


class _ResponseNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        norm = x_BTHWC.square().sum(dim=(1, 2), keepdim=True).sqrt()
        share = norm / (norm.mean(dim=-1, keepdim=True) + _EPSILON)
        return self.gamma * (x_BTHWC * share) + self.beta + x_BTHWC
