"""3D PatchGAN: says of every space-time patch of a clip whether it looks real.

Isola et al., arXiv:1611.07004, with 3D kernels. GroupNorm instead of the usual BatchNorm, so that a
clip's verdict does not depend on its batch (small batches of mixed images and videos, and the R1
penalty, need that). Time is halved once: patches stay short. Images are clips of one frame.

Losses: hinge (Lim and Ye, arXiv:1705.02894); R1 (Mescheder et al., arXiv:1801.04406).
Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from schemas.base import StrictModel

_MAX_WIDENING = 8  # channels grow to this many times the first layer's


class DiscriminatorConfig(StrictModel):
    """`num_layers` strided layers: a patch sees 2^num_layers pixels a side, and more by overlap."""

    in_channels: Annotated[int, Field(gt=0)] = 3
    base_channels: Annotated[int, Field(gt=0, multiple_of=8)] = 64
    num_layers: Annotated[int, Field(gt=0)] = 4


class PatchDiscriminator3d(nn.Module):
    """Logits of shape (B, 1, T', H', W'), positive for real; video_BCTHW in [-1, 1]."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.base_channels
        layers: list[nn.Module] = [
            nn.Conv3d(config.in_channels, channels, 3, stride=(1, 2, 2), padding=1),
            nn.LeakyReLU(0.2),
        ]
        for index in range(1, config.num_layers + 1):
            wider = config.base_channels * min(2**index, _MAX_WIDENING)
            is_last = index == config.num_layers
            stride = (1, 1, 1) if is_last else (2 if index == 1 else 1, 2, 2)
            layers += [
                nn.Conv3d(channels, wider, 3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(8, wider),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        layers.append(nn.Conv3d(channels, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.apply(_initialize)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        logits: Tensor = self.layers(video_BCTHW)
        return logits


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the sum of both hinges: zero once real patches are above 1 and fake ones under -1."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Falls without limit as fake patches look more real."""
    return -fake_logits.mean()


def r1_penalty(discriminator: nn.Module, real_BCTHW: Tensor) -> Tensor:
    """Half the squared gradient of the logits' sum, per real clip, averaged over the batch."""
    real_BCTHW = real_BCTHW.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(
        discriminator(real_BCTHW).sum(), real_BCTHW, create_graph=True
    )
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()
