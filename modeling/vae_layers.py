"""The layers of the causal VAE. Attribute names give the checkpoint's keys.

Shape suffixes: B batch, C channels, T frames, H height, W width, S = H * W.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modeling.causal_conv import CausalConv3d

_NORM_EPS = 1e-6


class PerFrameGroupNorm(nn.GroupNorm):
    """Group norm whose statistics see one frame only, so that no frame hears of another."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BTCHW = x_BCTHW.transpose(1, 2)
        normed = super().forward(x_BTCHW.flatten(0, 1))
        return normed.view(x_BTCHW.shape).transpose(1, 2)


class NormFactory:
    """Makes the norms of one network: all of a clip together, or frame by frame."""

    def __init__(self, num_groups: int, *, per_frame: bool) -> None:
        self.num_groups = num_groups
        self.norm_class = PerFrameGroupNorm if per_frame else nn.GroupNorm

    def __call__(self, channels: int) -> nn.GroupNorm:
        return self.norm_class(self.num_groups, channels, eps=_NORM_EPS)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, norm: NormFactory) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = norm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = (
            CausalConv3d(in_channels, out_channels, (1, 1, 1))
            if in_channels != out_channels
            else None
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h_BCTHW = self.conv1.of_normed(self.norm1, x_BCTHW)
        h_BCTHW = self.conv2.of_normed(self.norm2, h_BCTHW)
        skip_BCTHW = x_BCTHW if self.conv_shortcut is None else self.conv_shortcut(x_BCTHW)
        return cast(Tensor, skip_BCTHW + h_BCTHW)


def frame_causal_attention(q_BTSC: Tensor, k_BTSC: Tensor, v_BTSC: Tensor) -> Tensor:
    """One head; the tokens of a frame see their own frame and all earlier ones.

    One call per frame on a prefix of the keys: no (T*S) x (T*S) mask exists, and the fused
    kernels stay usable.
    """
    frames = []
    for t in range(q_BTSC.shape[1]):
        keys, values = (x[:, : t + 1].flatten(1, 2).unsqueeze(1) for x in (k_BTSC, v_BTSC))
        frames.append(F.scaled_dot_product_attention(q_BTSC[:, t].unsqueeze(1), keys, values))
    return torch.cat(frames, dim=1)


class FrameCausalAttention(nn.Module):
    def __init__(self, channels: int, norm: NormFactory) -> None:
        super().__init__()
        self.group_norm = norm(channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BTSC = self.group_norm(x_BCTHW).flatten(3).permute(0, 2, 3, 1)
        h_BTSC = frame_causal_attention(self.to_q(x_BTSC), self.to_k(x_BTSC), self.to_v(x_BTSC))
        h_BCTS = self.to_out[0](h_BTSC).permute(0, 3, 1, 2)
        return cast(Tensor, x_BCTHW + h_BCTS.reshape(x_BCTHW.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int, stride_THW: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride_THW=stride_THW)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x_BCTHW))


class Upsample(nn.Module):
    """Nearest-neighbor enlargement, then a convolution. The first frame is not repeated in time."""

    def __init__(self, channels: int, factor_THW: tuple[int, int, int]) -> None:
        super().__init__()
        self.factor_THW = factor_THW
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.conv.of_enlarged(x_BCTHW, self.factor_THW)


class MidBlock(nn.Module):
    def __init__(self, channels: int, norm: NormFactory, *, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, norm) for _ in range(2)])
        self.attentions = nn.ModuleList([FrameCausalAttention(channels, norm)] * attention)

    def layers(self) -> list[nn.Module]:
        return [self.resnets[0], *self.attentions, self.resnets[1]]


class DownBlock(nn.Module):
    """Residual blocks at one resolution, then a strided convolution unless nothing shrinks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        stride_THW: tuple[int, int, int],
        norm: NormFactory,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(in_channels if i == 0 else out_channels, out_channels, norm)
            for i in range(num_layers)
        )
        self.downsamplers = nn.ModuleList(
            [Downsample(out_channels, stride_THW)] * (stride_THW != (1, 1, 1))
        )

    def layers(self) -> list[nn.Module]:
        return [*self.resnets, *self.downsamplers]


class UpBlock(nn.Module):
    """Residual blocks at one resolution, then an enlargement unless nothing grows."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        factor_THW: tuple[int, int, int],
        norm: NormFactory,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(in_channels if i == 0 else out_channels, out_channels, norm)
            for i in range(num_layers)
        )
        self.upsamplers = nn.ModuleList(
            [Upsample(out_channels, factor_THW)] * (factor_THW != (1, 1, 1))
        )

    def layers(self) -> list[nn.Module]:
        return [*self.resnets, *self.upsamplers]


def run_layers(layers: list[nn.Module], x_BCTHW: Tensor, *, checkpointing: bool) -> Tensor:
    """Apply the layers in order; checkpointed ones recompute their inside in the backward pass."""
    for layer in layers:
        if checkpointing and torch.is_grad_enabled():
            x_BCTHW = cast(Tensor, checkpoint(layer, x_BCTHW, use_reentrant=False))
        else:
            x_BCTHW = layer(x_BCTHW)
    return x_BCTHW
