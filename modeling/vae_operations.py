"""What the VAE does around and in its convolutions, in plain PyTorch.

`PLAIN_VAE` is the definition and the default; `modeling.kernels.vae_operations` has the same as GPU
kernels. A convolution calls whatever it holds.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = tuple[int, int, int]  # frames, height, width


class Pad(Protocol):
    def __call__(self, x_BCTHW: Tensor, padding_THW: Sizes, /) -> Tensor: ...


class NormSiluPad(Protocol):
    def __call__(self, norm: nn.GroupNorm, x_BCTHW: Tensor, padding_THW: Sizes, /) -> Tensor: ...


class EnlargePad(Protocol):
    def __call__(self, x_BCTHW: Tensor, factor_THW: Sizes, padding_THW: Sizes, /) -> Tensor: ...


class Convolve(Protocol):
    def __call__(self, conv: nn.Conv3d, padded_BCTHW: Tensor, /) -> Tensor: ...


class VaeOperations(NamedTuple):
    pad: Pad
    norm_silu_pad: NormSiluPad
    enlarge_pad: EnlargePad
    convolve: Convolve


def pad_with_edges(x_BCTHW: Tensor, padding_THW: Sizes) -> Tensor:
    """Repeat the first frame `t` times before the clip and the border pixels `h`, `w` times."""
    if padding_THW == (0, 0, 0):
        return x_BCTHW
    if x_BCTHW.is_cuda and torch.are_deterministic_algorithms_enabled():
        # The backward of replicate padding adds atomically on CUDA, and PyTorch then refuses it.
        return pad_by_copies(x_BCTHW, padding_THW)
    t, h, w = padding_THW
    # F.pad takes the last dimension first: (W left, W right, H top, H bottom, T past, T future)
    return F.pad(x_BCTHW, (w, w, h, h, t, 0), mode="replicate")


def pad_by_copies(x_BCTHW: Tensor, padding_THW: Sizes) -> Tensor:
    """The same values by joining slices: three copies, but sums in a fixed order backward."""
    t, h, w = padding_THW
    for dim, before, after in ((2, t, 0), (3, h, h), (4, w, w)):
        first, last = x_BCTHW.narrow(dim, 0, 1), x_BCTHW.narrow(dim, x_BCTHW.shape[dim] - 1, 1)
        x_BCTHW = torch.cat([first] * before + [x_BCTHW] + [last] * after, dim=dim)
    return x_BCTHW


def norm_silu_pad(norm: nn.GroupNorm, x_BCTHW: Tensor, padding_THW: Sizes) -> Tensor:
    return pad_with_edges(F.silu(norm(x_BCTHW)), padding_THW)


def repeat_nearest(x_BCTHW: Tensor, factor_THW: Sizes) -> Tensor:
    """Every value repeated t x h x w times."""
    b, c, num_frames, height, width = x_BCTHW.shape
    t, h, w = factor_THW
    wide = x_BCTHW[:, :, :, None, :, None, :, None].expand(b, c, num_frames, t, height, h, width, w)
    return wide.reshape(b, c, num_frames * t, height * h, width * w)


def enlarge_pad(x_BCTHW: Tensor, factor_THW: Sizes, padding_THW: Sizes) -> Tensor:
    """Nearest-neighbor enlargement. The first frame is not repeated in time."""
    _, h, w = factor_THW
    first = repeat_nearest(x_BCTHW[:, :, :1], (1, h, w))
    rest = repeat_nearest(x_BCTHW[:, :, 1:], factor_THW)
    return pad_with_edges(torch.cat([first, rest], dim=2), padding_THW)


def convolve(conv: nn.Conv3d, padded_BCTHW: Tensor) -> Tensor:
    out_BCTHW: Tensor = conv(padded_BCTHW)
    return out_BCTHW


PLAIN_VAE = VaeOperations(pad_with_edges, norm_silu_pad, enlarge_pad, convolve)
