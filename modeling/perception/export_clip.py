"""Export the picture side of a CLIP, SigLIP or X-CLIP model as a clip embedding.

    python -m modeling.perception.export_clip NAME_OR_FOLDER OUT.onnx

then `model = "path:OUT.onnx"` in the configuration of the embed pass. The model is a transformers
id or a folder with `config.json`, weights and the preprocessor's configuration; licences are those
of the weights. CLIP (arXiv 2103.00020) and SigLIP (arXiv 2303.15343) see frames: their unit vectors
are averaged over time (CLIP4Clip's mean pooling, arXiv 2104.08860), for any number of frames.
X-CLIP (arXiv 2208.02816) sees its own number of frames; its vector is that of the video before
the prompts of texts change it. The thresholds of the near-duplicate search belong to the default
embedding: choose them anew for another.

Shape letters: N clips, T frames, M = N x T, D width.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.onnx_file import export_onnx
from modeling.text_files import folder_fingerprint, model_folder
from schemas.model_card import INTERFACE_VERSION, ModelCard, Resize

_FRAME_MODELS = ("clip", "siglip")
_VIDEO_MODELS = ("xclip",)
_NUM_EXAMPLE_FRAMES = 4
_MAX_LEVEL = 255.0
_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class ExportError(ValueError):
    """A model that the interface cannot express; the message says why."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the model was trained to see. `mean` and `sd` are of levels scaled to [0, 1]."""

    side: int
    resize: Resize
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]


class FrameTower(nn.Module):
    """frames_NTHWC (uint8 RGB) -> N x D: the mean over time of the frames' unit vectors, scaled."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.vision = model.get_submodule("vision_model")
        modules = dict(model.named_children())
        self.projection = modules.get("visual_projection", nn.Identity())  # SigLIP has none
        self.normalize = _Normalize(preprocessing)

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        num_frames = frames_NTHWC.shape[1]
        vectors_MD = self.projection(self.vision(self.normalize(frames_NTHWC)).pooler_output)
        unit_MD = F.normalize(vectors_MD, dim=1)
        unit_NTD = unit_MD.reshape(-1, num_frames, unit_MD.shape[1])
        return F.normalize(unit_NTD.mean(dim=1), dim=1)


class VideoTower(nn.Module):
    """frames_NTHWC (uint8 RGB, T fixed) -> N x D: X-CLIP's vector of the video, scaled to one."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.vision = model.get_submodule("vision_model")
        self.projection = model.get_submodule("visual_projection")
        self.over_time = model.get_submodule("mit")
        self.normalize = _Normalize(preprocessing)

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        num_frames = frames_NTHWC.shape[1]
        vectors_MD = self.projection(self.vision(self.normalize(frames_NTHWC)).pooler_output)
        vectors_NTD = vectors_MD.reshape(-1, num_frames, vectors_MD.shape[1])
        return F.normalize(self.over_time(vectors_NTD).pooler_output, dim=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the ONNX file and say its sha256."""
    parser = argparse.ArgumentParser(description="Export CLIP, SigLIP or X-CLIP to ONNX.")
    parser.add_argument("model", help="a transformers id or a folder")
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        sha256 = export_clip(options.model, options.output)
    except ExportError as error:
        parser.error(str(error))
    print(f"{options.output}: sha256 {sha256}")  # noqa: T201


def export_clip(name_or_path: str, output: Path) -> str:
    """Returns the sha256 of what was written. Raises ExportError."""
    from transformers import AutoModel

    folder = model_folder(name_or_path)
    model_type = _model_type(folder)
    # Eager attention is plain matrix products, which every runtime has.
    model: Any = AutoModel.from_pretrained(folder, attn_implementation="eager")
    model = model.float().eval().requires_grad_(requires_grad=False)
    vision = model.config.vision_config
    preprocessing = read_preprocessing(folder, int(vision.image_size))
    is_video = model_type in _VIDEO_MODELS
    num_frames = int(vision.num_frames) if is_video else None
    tower = VideoTower(model, preprocessing) if is_video else FrameTower(model, preprocessing)
    _rename_lookups(tower)
    side = preprocessing.side
    card = ModelCard(
        kind="clip_embedding",
        model_id=f"{model_type}-{folder_fingerprint(folder)}",
        interface_version=INTERFACE_VERSION,
        num_frames=num_frames,
        height=side,
        width=side,
        resize=preprocessing.resize,
        config_sha256=hashlib.sha256((folder / "config.json").read_bytes()).hexdigest(),
    )
    example = torch.zeros((2, num_frames or _NUM_EXAMPLE_FRAMES, side, side, 3), dtype=torch.uint8)
    return export_onnx(
        tower, example, output, card=card, outputs=["embedding"], dynamic_time=not is_video
    )


def read_preprocessing(folder: Path, side: int) -> Preprocessing:
    """Of a model whose pictures are `side` pixels high and wide. Raises ExportError."""
    found = next((folder / name for name in _PREPROCESSOR_FILES if (folder / name).exists()), None)
    if found is None:
        raise ExportError(f"{folder}: has no {_PREPROCESSOR_FILES[0]}, so its colors are unknown")
    values = json.loads(found.read_text(encoding="utf-8"))
    values = values.get("image_processor", values)
    size, crop_size = values.get("size"), values.get("crop_size")
    is_cropped = bool(values.get("do_center_crop", False))
    seen = _side(found, crop_size if is_cropped else size)
    scaled = _side(found, size)
    if seen != side or scaled != side:
        raise ExportError(
            f"{found}: scales pictures to {scaled} and shows {seen} of them to a network of {side};"
            " the three must be equal"
        )
    factor = values.get("rescale_factor", 1 / _MAX_LEVEL)
    if not values.get("do_rescale", True) or abs(factor * _MAX_LEVEL - 1) > 1e-6:
        raise ExportError(f"{found}: levels are not scaled to [0, 1] (rescale_factor {factor})")
    return Preprocessing(
        side=side,
        resize="center_crop" if is_cropped else "stretch",
        mean=_three(found, values, "image_mean"),
        sd=_three(found, values, "image_std"),
    )


class _Normalize(nn.Module):
    """frames_NTHWC (uint8) -> M x 3 x H x W, zero mean and unit spread as in training."""

    mean_C11: Tensor
    sd_C11: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean_C11", torch.tensor(preprocessing.mean).view(3, 1, 1))
        self.register_buffer("sd_C11", torch.tensor(preprocessing.sd).view(3, 1, 1))

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        height, width = frames_NTHWC.shape[2:4]
        x_MCHW = frames_NTHWC.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float()
        return (x_MCHW / _MAX_LEVEL - self.mean_C11) / self.sd_C11


class _Lookup(nn.Module):
    """A table's rows by number: what nn.Embedding does, under another name in the graph."""

    def __init__(self, weight_VD: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight_VD", weight_VD)

    def forward(self, rows: Tensor) -> Tensor:
        weight_VD: Tensor = self.get_buffer("weight_VD")
        return weight_VD[rows]


def _rename_lookups(tower: nn.Module) -> None:
    """The exporter calls a lookup `embedding`, which is the name of the output."""
    for module in list(tower.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Embedding):
                setattr(module, name, _Lookup(child.weight.detach()))


def _model_type(folder: Path) -> str:
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ExportError(f"{folder}: has no config.json") from error
    model_type = str(json.loads(text).get("model_type"))
    known = (*_FRAME_MODELS, *_VIDEO_MODELS)
    if model_type not in known:
        raise ExportError(f"{folder}: model_type is {model_type!r}, known are {', '.join(known)}")
    return model_type


def _side(path: Path, size: object) -> int:
    """Written as a number, {"shortest_edge": s} or {"height": s, "width": s}."""
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping):
        sides = {size[key] for key in ("shortest_edge", "height", "width") if key in size}
        if len(sides) == 1:
            return int(sides.pop())
    raise ExportError(f"{path}: size is {size}, need one square side")


def _three(path: Path, values: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    numbers = values.get(key)
    if not isinstance(numbers, list) or len(numbers) != 3:
        raise ExportError(f"{path}: {key} is {numbers}, need three numbers")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


if __name__ == "__main__":
    main()
