"""Contrastive losses over a batch, with a learned temperature.

Two samples with one and the same text are no negatives of each other: such pairs count for
nothing. Measured captions repeat often.

Shape letters: N samples of the batch, V videos, S texts (V = S = N).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.videoclip.config import Loss

_MAX_SCALE = 100.0  # CLIP's limit: beyond it training becomes unstable
_INFONCE_SCALE = 1 / 0.07
_SIGMOID_SCALE, _SIGMOID_BIAS = 10.0, -10.0  # SigLIP's start


class ContrastiveLoss(nn.Module):
    """`infonce`: symmetric, CLIP's (arXiv 2103.00020). `sigmoid`: SigLIP's (arXiv 2303.15343)."""

    def __init__(self, kind: Loss) -> None:
        super().__init__()
        self.kind = kind
        scale = _INFONCE_SCALE if kind == "infonce" else _SIGMOID_SCALE
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(_SIGMOID_BIAS if kind == "sigmoid" else 0.0))

    def forward(self, video_ND: Tensor, text_ND: Tensor, text_id_N: Tensor) -> Tensor:
        """The mean over samples. `text_id_N`: equal where the texts are equal."""
        logits_VS = self.scale() * video_ND @ text_ND.T
        is_own_VS = torch.eye(len(text_id_N), dtype=torch.bool, device=text_id_N.device)
        is_void_VS = (text_id_N[:, None] == text_id_N[None]) & ~is_own_VS
        if self.kind == "infonce":
            logits_VS = logits_VS.masked_fill(is_void_VS, -torch.inf)
            own_N = torch.arange(len(text_id_N), device=text_id_N.device)
            return (F.cross_entropy(logits_VS, own_N) + F.cross_entropy(logits_VS.T, own_N)) / 2
        sign_VS = torch.where(is_own_VS, 1.0, -1.0)
        terms_VS = F.logsigmoid(sign_VS * (logits_VS + self.bias))
        return -terms_VS.masked_fill(is_void_VS, 0.0).sum() / len(text_id_N)

    def scale(self) -> Tensor:
        return self.log_scale.clamp(max=math.log(_MAX_SCALE)).exp()
