"""The image network that both heads of the clip embedding read, frozen: EfficientNet-Lite0.

Shape suffixes: N clips, M pictures, T frames, C trunk channels (1280), H height, W width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from modeling.perception.efficientnet_lite import EfficientNetLite0, load_released_weights
from modeling.perception.onnx_file import export_onnx
from schemas.model_card import INTERFACE_VERSION, ModelCard

SIDE_PX = 224  # what the network was trained at
NUM_CHANNELS = 1280


class Trunk(nn.Module):
    """frames_NTHWC (uint8 RGB) -> N x T x 1280: mean over space of the last features, in [0, 6]."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        num_frames, height, width = frames_NTHWC.shape[1:4]
        x_MCHW = frames_NTHWC.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float()
        features_MC = self.network.features((x_MCHW - 127.0) / 128.0).mean(dim=(2, 3))
        return features_MC.reshape(-1, num_frames, features_MC.shape[1])


def load_trunk(weights: Path) -> Trunk:
    """From the released PyTorch file (see modeling/perception/copies/__main__.py)."""
    network = EfficientNetLite0().eval()
    load_released_weights(network, torch.load(weights, map_location="cpu", weights_only=True))
    network.fuse_batch_norms()
    return Trunk(network)


def export_trunk(trunk: Trunk, path: Path) -> None:
    """For ONNX Runtime, which is three times as fast on a CPU: frames N x T -> N x T x 1280."""
    card = ModelCard(
        kind="clip_embedding",
        model_id="efficientnet-lite0-frames",
        interface_version=INTERFACE_VERSION,
        num_frames=None,
        height=SIDE_PX,
        width=SIDE_PX,
        resize="stretch",
        config_sha256="",
    )
    example = torch.zeros((2, 4, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8)
    export_onnx(trunk, example, path, card=card, outputs=["features"], dynamic_time=True)
