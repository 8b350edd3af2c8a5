"""The default clip embedding: two unit vectors a clip from one image network."""

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.embedding.copy_head import CopyHead
from modeling.perception.embedding.trunk import Trunk

OUTPUTS = ("copy", "semantic")


class ClipEmbedding(nn.Module):
    """frames_NTHWC (uint8 RGB) -> `copy` N x 512, for near-duplicates; `semantic` N x 1280.

    `semantic` is the mean of the trunk's features over time, at length 1: ImageNet's classes shape
    it, and clips of one kind lie near each other whatever the moment.
    """

    def __init__(self, trunk: Trunk, head: CopyHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, frames_NTHWC: Tensor) -> tuple[Tensor, Tensor]:
        features_NTC = self.trunk(frames_NTHWC)
        return self.head(features_NTC), F.normalize(features_NTC.mean(dim=1), dim=1)
