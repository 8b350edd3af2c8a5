"""EfficientNet-Lite0: a mobile image classifier, used as the trunk of the default clip embedding.

Architecture: EfficientNet-B0 (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation, with
ReLU6, and with the stem and the head at their base width. TensorFlow's SAME padding puts the odd
pixel at the bottom right. Input: RGB, (x - 127) / 128, N x 3 x 224 x 224.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

FEATURE_CHANNELS = 1280
_STEM_CHANNELS = 32
_CONV_NORM_PAIRS = (
    ("conv_stem", "bn0"),
    ("conv_head", "bn1"),
    ("expand_conv", "bn0"),
    ("depthwise_conv", "bn1"),
    ("project_conv", "bn2"),
)
_BATCH_NORM_EPS = 1e-3  # TensorFlow's default, in which the released weights were trained


@dataclass(frozen=True, slots=True)
class _BlockGroup:
    repeats: int
    kernel: int
    stride: int  # of the first block of the group
    expansion: int
    channels: int


_GROUPS = (
    _BlockGroup(repeats=1, kernel=3, stride=1, expansion=1, channels=16),
    _BlockGroup(repeats=2, kernel=3, stride=2, expansion=6, channels=24),
    _BlockGroup(repeats=2, kernel=5, stride=2, expansion=6, channels=40),
    _BlockGroup(repeats=3, kernel=3, stride=2, expansion=6, channels=80),
    _BlockGroup(repeats=3, kernel=5, stride=1, expansion=6, channels=112),
    _BlockGroup(repeats=4, kernel=5, stride=2, expansion=6, channels=192),
    _BlockGroup(repeats=1, kernel=3, stride=1, expansion=6, channels=320),
)


class EfficientNetLite0(nn.Module):
    """1000 ImageNet logits; `features` gives the last feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SameConv2d(3, _STEM_CHANNELS, 3, stride=2)
        self.bn0 = _batch_norm(_STEM_CHANNELS)
        blocks: list[nn.Module] = []
        channels = _STEM_CHANNELS
        for group in _GROUPS:
            for index in range(group.repeats):
                stride = group.stride if index == 0 else 1
                blocks.append(_InvertedResidual(channels, group, stride=stride))
                channels = group.channels
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = _SameConv2d(channels, FEATURE_CHANNELS, 1)
        self.bn1 = _batch_norm(FEATURE_CHANNELS)
        self.fc = nn.Linear(FEATURE_CHANNELS, 1000)

    def features(self, x_NCHW: Tensor) -> Tensor:
        """N x 1280 x H/32 x W/32, values in [0, 6]."""
        x = F.relu6(self.bn0(self.conv_stem(x_NCHW)))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.bn1(self.conv_head(x)))

    def fuse_batch_norms(self) -> None:
        """Fold every batch norm into its convolution: the same function in evaluation mode."""
        self.eval()
        for module in self.modules():
            for conv, norm in _CONV_NORM_PAIRS:
                if hasattr(module, conv) and isinstance(getattr(module, norm), nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                    setattr(module, conv, fused)
                    setattr(module, norm, nn.Identity())

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x_NCHW).mean(dim=(2, 3)))
        return logits


def load_released_weights(model: EfficientNetLite0, state: Mapping[str, Tensor]) -> None:
    """Load the released PyTorch state dict; a missing or surplus key is an error."""
    renamed = {re.sub(r"(^|\.)_", r"\1", key): value for key, value in state.items()}
    model.load_state_dict(renamed, strict=True)


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, group: _BlockGroup, *, stride: int) -> None:
        super().__init__()
        hidden = in_channels * group.expansion
        self.has_expansion = group.expansion > 1
        if self.has_expansion:
            self.expand_conv = _SameConv2d(in_channels, hidden, 1)
            self.bn0 = _batch_norm(hidden)
        self.depthwise_conv = _SameConv2d(
            hidden, hidden, group.kernel, stride=stride, groups=hidden
        )
        self.bn1 = _batch_norm(hidden)
        self.project_conv = _SameConv2d(hidden, group.channels, 1)
        self.bn2 = _batch_norm(group.channels)
        self.has_skip = stride == 1 and in_channels == group.channels

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x: Tensor = x_NCHW
        if self.has_expansion:
            x = F.relu6(self.bn0(self.expand_conv(x)))
        x = F.relu6(self.bn1(self.depthwise_conv(x)))
        x = self.bn2(self.project_conv(x))
        return x + x_NCHW if self.has_skip else x


class _SameConv2d(nn.Conv2d):
    """Convolution without bias, whose output side is ceil(input / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads: list[int] = []
        for side in (int(x_NCHW.shape[3]), int(x_NCHW.shape[2])):  # F.pad counts from the last axis
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        output: Tensor = super().forward(F.pad(x_NCHW, pads))
        return output


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS)
