"""The trained network as the ONNX file that the score pass loads."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from modeling.perception.onnx_file import export_onnx
from modeling.perception.quality.network import ClipQuality, QualityNet
from modeling.perception.quality.train import TrainConfig
from schemas.model_card import INTERFACE_VERSION, ModelCard

NUM_PARTS = 12
OUTPUTS = ("quality", "blur_px")


def export_quality(network: QualityNet, path: Path, *, model_id: str, config: TrainConfig) -> str:
    """Write the file; returns its sha256."""
    config_json = json.dumps(asdict(config), sort_keys=True).encode()
    side_px = config.side_px
    card = ModelCard(
        kind="quality",
        model_id=model_id,
        interface_version=INTERFACE_VERSION,
        num_frames=NUM_PARTS,
        height=side_px,
        width=side_px,
        resize="native_parts",
        config_sha256=hashlib.sha256(config_json).hexdigest(),
    )
    model = ClipQuality(network.to(memory_format=torch.contiguous_format))
    example = torch.zeros((2, NUM_PARTS, side_px, side_px, 3), dtype=torch.uint8)
    return export_onnx(model, example, path, card=card, outputs=OUTPUTS)
