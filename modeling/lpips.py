"""LPIPS over VGG16: Zhang et al., "The unreasonable effectiveness of deep features", 2018.

Linear heads: those of the `lpips` package (version 0.1, BSD-2-Clause). VGG16 weights come from a
file of the user's (torchvision's `vgg16` state dict, or its safetensors): no package carries them.
The keys here are torchvision's own, so that such a file loads as it is. Where there are no VGG16
weights, `modeling/perceptual.py` has another distance, which is not LPIPS and is not called so.

Shape suffixes: N images (frames folded into the batch), C channels, H height, W width.
"""

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# VGG16's convolutions; each stage ends before a max pooling and gives one feature map.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_NORM_EPS = 1e-10


def lpips_head_file() -> Path:
    """The `lpips` package's linear heads for VGG16, found without importing that package."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the linear heads of LPIPS come from the package lpips: install it")
    return Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a PyTorch file opened with weights_only."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {str(name): tensor for name, tensor in loaded.items()}


class Vgg16Features(nn.Module):
    """The five feature maps of VGG16 that LPIPS compares, at 1/1 to 1/16 of the size."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 3
        self._ends: list[int] = []
        for stage in _STAGES:
            for out_channels in stage:
                layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
                in_channels = out_channels
            self._ends.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    def forward(self, images_NCHW: Tensor) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            images_NCHW = layer(images_NCHW)
            if index in self._ends:
                maps.append(images_NCHW)
        return maps

    def load_torchvision(self, tensors: dict[str, Tensor]) -> None:
        """Take a torchvision vgg16 state dict; the classifier's tensors are not needed."""
        self.load_state_dict({k: v for k, v in tensors.items() if k.startswith("features.")})


class Lpips(nn.Module):
    """Distance between pictures in [-1, 1], shape (N,). Frozen; gradients reach the pictures."""

    mean_C: Tensor
    std_C: Tensor

    def __init__(self) -> None:
        super().__init__()
        # ImageNet's statistics for [0, 1], restated for pictures in [-1, 1].
        self.register_buffer("mean_C", torch.tensor([-0.030, -0.088, -0.188]))
        self.register_buffer("std_C", torch.tensor([0.458, 0.448, 0.450]))
        self.backbone = Vgg16Features()
        self.heads = nn.ModuleList(nn.Conv2d(s[-1], 1, 1, bias=False) for s in _STAGES)
        self.eval().requires_grad_(requires_grad=False)

    @classmethod
    def from_files(cls, vgg16_path: Path, heads_path: Path | None = None) -> "Lpips":
        """Read VGG16 from vgg16_path and the heads from heads_path (default: the package's)."""
        lpips = cls()
        lpips.backbone.load_torchvision(read_weights(vgg16_path))
        lpips.load_heads(read_weights(heads_path or lpips_head_file()))
        return lpips

    def load_heads(self, tensors: dict[str, Tensor]) -> None:
        """Take the package's names: lin0.model.1.weight to lin4.model.1.weight."""
        renamed = {
            f"{index}.weight": tensors[f"lin{index}.model.1.weight"]
            for index in range(len(_STAGES))
        }
        self.heads.load_state_dict(renamed)

    def forward(self, first_NCHW: Tensor, second_NCHW: Tensor) -> Tensor:
        distance_N = first_NCHW.new_zeros(len(first_NCHW))
        pairs = zip(self._maps(first_NCHW), self._maps(second_NCHW), strict=True)
        for head, (first, second) in zip(self.heads, pairs, strict=True):
            distance_N = distance_N + head((first - second).square()).mean((1, 2, 3))
        return distance_N

    def _maps(self, images_NCHW: Tensor) -> list[Tensor]:
        scaled = (images_NCHW - self.mean_C.view(1, 3, 1, 1)) / self.std_C.view(1, 3, 1, 1)
        return [unit_channels(feature_map) for feature_map in self.backbone(scaled)]


def unit_channels(map_NCHW: Tensor) -> Tensor:
    """Each position's channel vector, scaled to length one.

    The square root is kept off zero (where its gradient is infinite) by less than float32 shows.
    """
    norm = map_NCHW.square().sum(1, keepdim=True).clamp_min(_NORM_EPS**2).sqrt()
    return map_NCHW / (norm + _NORM_EPS)
