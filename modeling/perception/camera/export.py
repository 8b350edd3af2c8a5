"""The trained network as the ONNX file that the pipeline loads, with calibrated probabilities."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from modeling.perception.camera.network import CameraNet
from modeling.perception.camera.train import TrainConfig
from modeling.perception.onnx_file import store_weights_as_fp16, strip_traces
from schemas.camera_network import (
    CAMERA_INPUT,
    GRID_COLUMNS,
    GRID_ROWS,
    NUM_FEATURES,
    THRESHOLDS_KEY,
)
from schemas.model_card import INTERFACE_VERSION, ModelCard

OUTPUTS = ("probability", "dolly")
_OPSET = 20


class CalibratedCameraNet(nn.Module):
    """Takes whole clips only: N x S x F without padding."""

    def __init__(self, network: CameraNet, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, steps_NSF: Tensor) -> tuple[Tensor, Tensor]:
        logits, dolly_logit = self.network(steps_NSF, torch.ones_like(steps_NSF[..., 0]))
        return torch.softmax(logits / self.temperature, 1), torch.sigmoid(dolly_logit)


def export_camera(
    network: CameraNet,
    path: Path,
    *,
    temperature: float,
    thresholds: Sequence[float],
    model_id: str,
    config: TrainConfig,
) -> str:
    """Write the file; returns its sha256. `thresholds`: one per class."""
    config_json = json.dumps(asdict(config), sort_keys=True).encode()
    card = ModelCard(
        kind="camera_movement",
        model_id=model_id,
        interface_version=INTERFACE_VERSION,
        num_frames=None,
        height=GRID_ROWS,
        width=GRID_COLUMNS,
        resize="stretch",
        config_sha256=hashlib.sha256(config_json).hexdigest(),
    )
    program = torch.onnx.export(
        CalibratedCameraNet(network, temperature).eval(),
        (torch.zeros(2, 24, NUM_FEATURES),),
        input_names=[CAMERA_INPUT],
        output_names=list(OUTPUTS),
        opset_version=_OPSET,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N"), 1: torch.export.Dim("S")},),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    store_weights_as_fp16(proto)
    strip_traces(proto)
    metadata = card.to_metadata() | {THRESHOLDS_KEY: json.dumps(list(thresholds))}
    helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
