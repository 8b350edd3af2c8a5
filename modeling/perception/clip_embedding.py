"""The default clip embedding: image features pooled over space and time, then projected.

Raw classifier features of any two pictures are alike (cosine around 0.5), so a threshold on them
separates badly. The projection removes the mean and scales each direction by how much it tells
clips apart, against how much a mere copy moves it (embedding_projection.py).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.efficientnet_lite import EfficientNetLite0


class PooledFeatures(nn.Module):
    """frames_NTHWC (uint8 RGB) -> N x 1280: mean over space, then over time."""

    def __init__(self, trunk: EfficientNetLite0) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        num_frames, height, width = frames_NTHWC.shape[1:4]
        x_MCHW = frames_NTHWC.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float()
        features_MC = self.trunk.features((x_MCHW - 127.0) / 128.0).mean(dim=(2, 3))
        return features_MC.reshape(-1, num_frames, features_MC.shape[1]).mean(dim=1)


class ClipEmbedding(nn.Module):
    """Unit vectors N x D from pooled features, a mean and a projection matrix."""

    def __init__(self, pooled: PooledFeatures, mean_C: Tensor, projection_CD: Tensor) -> None:
        super().__init__()
        self.pooled = pooled
        self.projection_CD = nn.Parameter(projection_CD, requires_grad=False)
        self.offset_D = nn.Parameter(-(mean_C @ projection_CD), requires_grad=False)

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        return F.normalize(self.pooled(frames_NTHWC) @ self.projection_CD + self.offset_D, dim=1)
