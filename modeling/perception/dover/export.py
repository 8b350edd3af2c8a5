"""Write DOVER as the network that `score.quality.model` loads."""

import hashlib
from pathlib import Path

import torch

from modeling.perception.dover.network import load_dover
from modeling.perception.onnx_file import export_onnx
from schemas.dover import AESTHETIC_OUTPUT, NUM_VIEWS, SIDE_PX, TECHNICAL_OUTPUT
from schemas.model_card import INTERFACE_VERSION, ModelCard

_SHOWN_DIGITS = 12


def export_dover(weights: Path, onnx_path: Path) -> str:
    """Returns the sha256 of what was written. Raises network.WeightsError."""
    model = load_dover(weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    card = ModelCard(
        kind="quality",
        model_id=f"{model.variant}-{sha256[:_SHOWN_DIGITS]}",
        interface_version=INTERFACE_VERSION,
        num_frames=NUM_VIEWS,
        height=SIDE_PX,
        width=SIDE_PX,
        resize="stretch",
        config_sha256=sha256,
    )
    example = torch.zeros((2, NUM_VIEWS, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8)
    outputs = [TECHNICAL_OUTPUT, AESTHETIC_OUTPUT]
    return export_onnx(model, example, onnx_path, card=card, outputs=outputs)
