"""Trunk and head as the ONNX file that the embed pass loads."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from modeling.perception.embedding.copy_head import CopyHead
from modeling.perception.embedding.network import OUTPUTS, ClipEmbedding
from modeling.perception.embedding.train import TrainConfig
from modeling.perception.embedding.trunk import SIDE_PX, Trunk
from modeling.perception.onnx_file import export_onnx
from schemas.model_card import INTERFACE_VERSION, ModelCard


def export_embedding(
    trunk: Trunk, head: CopyHead, path: Path, *, model_id: str, config: TrainConfig
) -> str:
    """Write the file; returns its sha256. It takes any number of frames, in the order of time."""
    config_json = json.dumps(asdict(config), sort_keys=True).encode()
    card = ModelCard(
        kind="clip_embedding",
        model_id=model_id,
        interface_version=INTERFACE_VERSION,
        num_frames=None,
        height=SIDE_PX,
        width=SIDE_PX,
        resize="stretch",
        config_sha256=hashlib.sha256(config_json).hexdigest(),
    )
    example = torch.zeros((2, 4, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8)
    model = ClipEmbedding(trunk, head)
    return export_onnx(model, example, path, card=card, outputs=OUTPUTS, dynamic_time=True)
