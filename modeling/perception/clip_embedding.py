"""The default clip embedding: image features pooled over space and time, as unit vectors."""

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.efficientnet_lite import EfficientNetLite0


class ClipEmbedding(nn.Module):
    """frames_NTHWC (uint8 RGB) -> N x 1280: mean over space, then over time, then length 1."""

    def __init__(self, trunk: EfficientNetLite0) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        num_frames, height, width = frames_NTHWC.shape[1:4]
        x_MCHW = frames_NTHWC.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float()
        features_MC = self.trunk.features((x_MCHW - 127.0) / 128.0).mean(dim=(2, 3))
        features_NTC = features_MC.reshape(-1, num_frames, features_MC.shape[1])
        return F.normalize(features_NTC.mean(dim=1), dim=1)
