"""3D convolution that sees the present and the past, never the future.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv3d(nn.Module):
    """Output frame t depends on input frames <= t * stride only. Borders repeat the edge values.

    The first frame is repeated into the past, so one image is a clip of one frame, and
    stride (2, 2, 2) takes 2n + 1 frames to n + 1. Source: MAGVIT-v2, arXiv:2310.05737.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_THW: tuple[int, int, int] = (3, 3, 3),
        *,
        stride_THW: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        t, h, w = kernel_THW
        if h % 2 == 0 or w % 2 == 0:
            raise ValueError(f"height and width of the kernel must be odd, got {kernel_THW}")
        self.padding_THW = (t - 1, h // 2, w // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_THW, stride=stride_THW)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        out_BCTHW: Tensor = self.conv(pad_with_edges(x_BCTHW, self.padding_THW))
        return out_BCTHW


def pad_with_edges(x_BCTHW: Tensor, padding_THW: tuple[int, int, int]) -> Tensor:
    """Repeat the first frame `t` times before the clip and the border pixels `h`, `w` times."""
    if padding_THW == (0, 0, 0):
        return x_BCTHW
    if x_BCTHW.is_cuda and torch.are_deterministic_algorithms_enabled():
        # The backward of replicate padding adds atomically on CUDA, and PyTorch then refuses it.
        return pad_by_copies(x_BCTHW, padding_THW)
    t, h, w = padding_THW
    # F.pad takes the last dimension first: (W left, W right, H top, H bottom, T past, T future)
    return F.pad(x_BCTHW, (w, w, h, h, t, 0), mode="replicate")


def pad_by_copies(x_BCTHW: Tensor, padding_THW: tuple[int, int, int]) -> Tensor:
    """The same values by joining slices: three copies, but sums in a fixed order backward."""
    t, h, w = padding_THW
    for dim, before, after in ((2, t, 0), (3, h, h), (4, w, w)):
        first, last = x_BCTHW.narrow(dim, 0, 1), x_BCTHW.narrow(dim, x_BCTHW.shape[dim] - 1, 1)
        x_BCTHW = torch.cat([first] * before + [x_BCTHW] + [last] * after, dim=dim)
    return x_BCTHW
