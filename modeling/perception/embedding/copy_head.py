"""The copy head: one unit vector a clip that tells a copy from another moment of the same scene.

Two parts. Appearance: the mean over time, whitened. Change: how the frames differ from that mean,
in the order of time, as the first coefficients of a cosine transform. Editing leaves the course of
change nearly alone, another moment before a static camera has another. A clip in which nothing
changes, or a picture, has a change part of length 0 and is told by its appearance alone.

Shape suffixes: N clips, T frames, C trunk channels, A appearance, K coefficients, B change
channels, D both parts.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

APPEARANCE_DIM = 256
CHANGE_DIM = 64
NUM_COEFFICIENTS = 4  # finer changes do not survive a trim


class CopyHead(nn.Module):
    """features_NTC -> N x (A + K * B), unit vectors."""

    mean_C: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.zeros(num_channels))
        self.appearance_AC = nn.Parameter(torch.zeros(APPEARANCE_DIM, num_channels))
        self.change_BC = nn.Parameter(torch.zeros(CHANGE_DIM, num_channels))
        self.log_coefficient_K = nn.Parameter(torch.zeros(NUM_COEFFICIENTS))
        self.log_change = nn.Parameter(torch.zeros(()))  # weight of change beside appearance
        self.log_floor = nn.Parameter(torch.tensor(math.log(0.3)))  # changes below are noise

    def forward(self, features_NTC: Tensor) -> Tensor:
        centered_NTC = features_NTC - self.mean_C
        mean_N1C = centered_NTC.mean(dim=1, keepdim=True)
        appearance_NA = F.normalize(mean_N1C[:, 0] @ self.appearance_AC.T, dim=1)
        transform_KT = _cosines(features_NTC)
        change_NKC = transform_KT @ (centered_NTC - mean_N1C)
        change_NKB = (change_NKC @ self.change_BC.T) * self.log_coefficient_K.exp()[:, None]
        change_ND = change_NKB.flatten(1)
        length_N1 = (change_ND.square().sum(1, keepdim=True) + self.log_floor.exp().square()).sqrt()
        both_ND = torch.cat([appearance_NA, self.log_change.exp() * change_ND / length_N1], dim=1)
        return F.normalize(both_ND, dim=1)


def _cosines(features_NTC: Tensor) -> Tensor:
    """K x T: coefficients 1 to K of the cosine transform (type 2), as means over time."""
    num_frames = features_NTC.shape[1]
    moment_T = (torch.arange(num_frames, device=features_NTC.device) + 0.5) / num_frames
    order_K = torch.arange(1, NUM_COEFFICIENTS + 1, device=features_NTC.device)
    return math.sqrt(2) / num_frames * torch.cos(math.pi * order_K[:, None] * moment_T)
