"""Write the video tower as a clip embedding of the pipeline, and the text tower beside it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from modeling.perception.onnx_file import export_onnx
from modeling.perception.videoclip.config import VideoClipConfig
from modeling.perception.videoclip.train import VideoClip
from schemas.base import canonical_json
from schemas.model_card import INTERFACE_VERSION, ModelCard

VIDEO_FILE = "videoclip.onnx"
TEXT_FILE = "text_tower.safetensors"
MEASURED = "measured"  # the captioner that looks at numbers alone
_UNTRAINED = "untrained for retrieval"


def export_videoclip(
    model: VideoClip, config: VideoClipConfig, captioners: Sequence[str], out: Path
) -> str:
    """Returns the sha256 of the ONNX file.

    The model id says `untrained for retrieval` where any of the texts were written from
    measurements: those say how a clip moves and how sharp it is, not what it shows.
    """
    model = model.cpu().eval()
    settings = canonical_json(config)
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    model_id = f"videoclip-{digest.hexdigest()[:12]}"
    if is_untrained(captioners):
        model_id += f" ({_UNTRAINED})"
    side = config.side
    card = ModelCard(
        kind="clip_embedding",
        model_id=model_id,
        interface_version=INTERFACE_VERSION,
        num_frames=config.num_frames,
        height=side,
        width=side,
        resize="stretch",
        config_sha256=hashlib.sha256(settings.encode()).hexdigest(),
    )
    example = torch.zeros((2, config.num_frames, side, side, 3), dtype=torch.uint8)
    tower = model.video.requires_grad_(requires_grad=False)
    sha256 = export_onnx(tower, example, out / VIDEO_FILE, card=card, outputs=["embedding"])
    weights = {name: tensor.contiguous() for name, tensor in model.text.state_dict().items()}
    metadata = {"model_id": model_id, "config": settings}
    save_file(weights, out / TEXT_FILE, metadata=metadata)
    return sha256


def is_untrained(captioners: Sequence[str]) -> bool:
    """Whether the texts name what the clips show too seldom to search by them."""
    return MEASURED in captioners


def write_report(path: Path, report: dict[str, object]) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
