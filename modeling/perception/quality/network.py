"""The network: parts of a picture at its own scale -> quality, blur, kinds of degradation.

Shape letters: P parts, H, W part height and width, C channels; N clips of T parts each.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 48, 64)
_HIDDEN = 64
_FINE_GAIN = 4.0  # detail is weak beside shading
_SHARPEST_SHARE = 1 / 3


class QualityNet(nn.Module):
    """luma_PHW in [0, 255] -> quality logit P, log(1 + blur sigma in px) P, kind logits P x K."""

    def __init__(self, num_kinds: int) -> None:
        super().__init__()
        self.stem = _Step(2, WIDTHS[0], stride=2)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_Step(before, width, stride=2), _Residual(width))
                for before, width in pairwise(WIDTHS)
            )
        )
        self.hidden = nn.Linear(2 * WIDTHS[-1], _HIDDEN)
        self.head = nn.Linear(_HIDDEN, 2 + num_kinds)

    def forward(self, luma_PHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        luma = (luma_PHW[:, None] - 127.5) / 64
        fine = _FINE_GAIN * (luma - F.avg_pool2d(luma, 3, stride=1, padding=1))
        maps_PCHW = self.stages(self.stem(torch.cat([luma, fine], dim=1)))
        flat = maps_PCHW.flatten(2)
        spread = (flat.var(dim=2, unbiased=False) + 1e-4).sqrt()
        hidden = F.relu(self.hidden(torch.cat([flat.mean(dim=2), spread], dim=1)))
        out = self.head(hidden)
        return out[:, 0], F.softplus(out[:, 1]), out[:, 2:]


class ClipQuality(nn.Module):
    """frames_NTHWC (uint8; parts of T) -> quality N in [0, 1], blur sigma of the sharpest third N.

    A sharp subject before a blurred background stays sharp.
    """

    def __init__(self, network: QualityNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames_NTHWC: Tensor) -> tuple[Tensor, Tensor]:
        luma_NTHW = frames_NTHWC.float().mean(dim=-1)
        logit_P, blur_P, _ = self.network(luma_NTHW.flatten(0, 1))
        num_parts = frames_NTHWC.shape[1]
        quality_N = torch.sigmoid(logit_P.reshape(-1, num_parts).mean(dim=1))
        sharpest = max(1, round(num_parts * _SHARPEST_SHARE))
        blur_NT = blur_P.reshape(-1, num_parts).topk(sharpest, dim=1, largest=False).values
        return quality_N, torch.expm1(blur_NT.mean(dim=1))


class _Step(nn.Sequential):
    def __init__(self, before: int, width: int, *, stride: int) -> None:
        super().__init__(
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = _Step(width, width, stride=1)

    def forward(self, x_PCHW: Tensor) -> Tensor:
        out: Tensor = x_PCHW + self.step(x_PCHW)
        return out
