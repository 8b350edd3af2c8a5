"""The trained detector as the ONNX file that the pipeline loads."""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from modeling.perception.onnx_file import export_onnx
from modeling.perception.overlays.classes import REPORTED
from modeling.perception.overlays.network import Detector
from modeling.perception.overlays.train import TrainConfig, best_boxes, config_json
from schemas.model_card import INTERFACE_VERSION, ModelCard
from schemas.overlay_network import OVERLAY_KINDS, OVERLAY_OUTPUTS, OVERLAY_THRESHOLDS_KEY


class ExportedDetector(nn.Module):
    """frames_NTHWC (uint8 RGB, T = 1) to boxes in shares, scores, and indices of kinds."""

    kinds: Tensor

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = _fused(network)
        self.register_buffer("kinds", torch.tensor([OVERLAY_KINDS.index(n) for n in REPORTED]))

    def forward(self, frames_NTHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = frames_NTHWC.shape[2:4]
        x_NCHW = frames_NTHWC[:, 0].permute(0, 3, 1, 2).float() / 255
        boxes, scores, labels = best_boxes(*self.network(x_NCHW))
        sides = torch.tensor([width, height, width, height], dtype=torch.float32)
        return (boxes / sides).clamp(0, 1), scores, self.kinds[labels]


def export_detector(
    network: Detector, path: Path, *, thresholds: Mapping[str, float], model_id: str,
    config: TrainConfig,
) -> str:  # fmt: skip
    """Write the file; returns its sha256. `thresholds`: per reported class."""
    height, width = config.input_HW
    card = ModelCard(
        kind="overlay",
        model_id=model_id,
        interface_version=INTERFACE_VERSION,
        num_frames=1,
        height=height,
        width=width,
        resize="stretch",
        config_sha256=hashlib.sha256(config_json(config).encode()).hexdigest(),
    )
    example = torch.zeros(2, 1, height, width, 3, dtype=torch.uint8)
    export_onnx(ExportedDetector(network), example, path, card=card, outputs=OVERLAY_OUTPUTS)
    proto = onnx.load(str(path))
    rounded = {name: round(float(value), 4) for name, value in thresholds.items()}
    metadata = card.to_metadata() | {OVERLAY_THRESHOLDS_KEY: json.dumps(rounded, sort_keys=True)}
    helper.set_model_props(proto, metadata)
    data = proto.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _fused(network: Detector) -> Detector:
    """A copy in which each normalization is part of the convolution before it."""
    fused = copy.deepcopy(network).eval()
    for module in fused.modules():
        if isinstance(module, nn.Sequential) and len(module) == 3:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return fused
