"""A small anchor-free detector after YOLOX (Ge et al., arXiv 2107.08430).

A trunk of split residual stages, features of strides 8, 16 and 32 joined both ways, and per place
the logits of the classes and of being on an object, and a box. Written from the paper.

Shape suffixes: N pictures, A places of all strides, K classes, C channels, H, W.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.perception.overlays.classes import CLASSES

STRIDES = (8, 16, 32)
_PRIOR = 0.01  # of any place to hold an object, at the start
_MAX_LOG_SIZE = 6.0  # e^6 strides are wider than any input
_WIDTHS = (16, 32, 64, 128, 192)
_HEAD_WIDTH = 64


class Detector(nn.Module):
    """Pictures N x 3 x H x W in [0, 1] to boxes N x A x 4 in pixels and logits N x A x (K + 1).

    Boxes: left, top, right, bottom. The last logit is that of an object of any class.
    """

    def __init__(self, widths: tuple[int, ...] = _WIDTHS, head_width: int = _HEAD_WIDTH) -> None:
        super().__init__()
        w0, w1, w2, w3, w4 = widths
        self.stem = _conv(3, w0, stride=2)
        self.stage4 = nn.Sequential(_conv(w0, w1, stride=2), _Stage(w1, 1))
        self.stage8 = nn.Sequential(_conv(w1, w2, stride=2), _Stage(w2, 2))
        self.stage16 = nn.Sequential(_conv(w2, w3, stride=2), _Stage(w3, 2))
        self.stage32 = nn.Sequential(_conv(w3, w4, stride=2), _Pooled(w4), _Stage(w4, 1))
        c = head_width
        self.lateral = nn.ModuleList(_conv(width, c, size=1) for width in (w2, w3, w4))
        self.down = nn.ModuleList(_Stage(c, 1) for _ in range(2))
        self.shrink = nn.ModuleList(_conv(c, c, stride=2) for _ in range(2))
        self.up = nn.ModuleList(_Stage(c, 1) for _ in range(2))
        self.heads = nn.ModuleList(_Head(c) for _ in STRIDES)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        f4 = self.stage4(self.stem(x_NCHW * 2 - 1))
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        f32 = self.stage32(f16)
        p8, p16, p32 = (lateral(f) for lateral, f in zip(self.lateral, (f8, f16, f32), strict=True))
        p16 = self.down[0](p16 + _enlarged(p32))
        p8 = self.down[1](p8 + _enlarged(p16))
        p16 = self.up[0](p16 + self.shrink[0](p8))
        p32 = self.up[1](p32 + self.shrink[1](p16))
        boxes, logits = [], []
        for head, feature, stride in zip(self.heads, (p8, p16, p32), STRIDES, strict=True):
            place_NCA, logit_NCA = (out.flatten(2) for out in head(feature))
            height, width = feature.shape[2:]
            centers_A2 = _centers(height, width, stride, feature)
            place_NA4 = place_NCA.transpose(1, 2)
            middle = centers_A2 + place_NA4[..., :2] * stride
            half = place_NA4[..., 2:].clamp(max=_MAX_LOG_SIZE).exp() * (stride / 2)
            boxes.append(torch.cat([middle - half, middle + half], 2))
            logits.append(logit_NCA.transpose(1, 2))
        return torch.cat(boxes, 1), torch.cat(logits, 1)


def places(input_HW: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centers A x 2 (x, y) in pixels and strides A of the places that `Detector` answers for."""
    reference = torch.zeros((), device=device)
    centers, strides = [], []
    for stride in STRIDES:
        height, width = (-(-side // stride) for side in input_HW)
        centers.append(_centers(height, width, stride, reference))
        strides.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(centers), torch.cat(strides)


def _centers(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * stride
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * stride
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], -1).reshape(-1, 2)


def _enlarged(x_NCHW: Tensor) -> Tensor:
    return functional.interpolate(x_NCHW, scale_factor=2.0, mode="nearest")


def _conv(in_channels: int, channels: int, *, size: int = 3, stride: int = 1,
          groups: int = 1) -> nn.Sequential:  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03),
        nn.SiLU(),
    )


class _Stage(nn.Module):
    """Half of the channels through residual blocks, half past them (CSPNet, arXiv 1911.11929)."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.through, self.past = _conv(channels, half, size=1), _conv(channels, half, size=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(half, half, size=1), _conv(half, half)) for _ in range(num_blocks)
        )
        self.out = _conv(channels, channels, size=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        through = self.through(x_NCHW)
        for block in self.blocks:
            through = through + block(through)
        joined: Tensor = self.out(torch.cat([through, self.past(x_NCHW)], 1))
        return joined


class _Pooled(nn.Module):
    """Largest values within 5, 9 and 13 places beside the features: a wide view for little."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.inner = _conv(channels, half, size=1)
        self.out = _conv(4 * half, channels, size=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pooled = [self.inner(x_NCHW)]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        joined: Tensor = self.out(torch.cat(pooled, 1))
        return joined


class _Head(nn.Module):
    """Boxes and classes from branches of their own; each block is a depthwise and a plain layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.place_branch, self.class_branch = (
            nn.Sequential(*[_separable(channels) for _ in range(2)]) for _ in range(2)
        )
        self.place = nn.Conv2d(channels, 4, 1)
        self.objectness = nn.Conv2d(channels, 1, 1)
        self.classes = nn.Conv2d(channels, len(CLASSES), 1)
        for layer in (self.objectness, self.classes):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, float(torch.logit(torch.tensor(_PRIOR))))

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes N x 4 x H x W, and classes and objectness N x (K + 1) x H x W."""
        by_place, by_class = self.place_branch(x_NCHW), self.class_branch(x_NCHW)
        return self.place(by_place), torch.cat(
            [self.classes(by_class), self.objectness(by_place)], 1
        )


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _conv(channels, channels, size=5, groups=channels), _conv(channels, channels, size=1)
    )
