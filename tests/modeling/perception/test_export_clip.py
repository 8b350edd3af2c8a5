"""Exported CLIP, SigLIP and X-CLIP towers against transformers' own features."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from modeling.perception.export_clip import (  # noqa: E402
    ExportError,
    export_clip,
    read_preprocessing,
)
from pipeline.embed.worker import embed  # noqa: E402
from pipeline.onnx_model import OnnxModel  # noqa: E402
from tests.media_files import moving_frames  # noqa: E402

SIDE = 32
NUM_FRAMES = 3
MEAN, SD = [0.48, 0.45, 0.41], [0.27, 0.26, 0.28]
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": SIDE, "do_center_crop": True}
STRETCHED = {"size": {"height": SIDE, "width": SIDE}}
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
TEXT = LAYERS | {"num_attention_heads": 2, "vocab_size": 64}
VISION = LAYERS | {"num_attention_heads": 2, "image_size": SIDE, "patch_size": 16}
MIT = {"mit_hidden_size": 24, "mit_intermediate_size": 48, "mit_num_attention_heads": 2}
FRAMES_THWC = moving_frames(NUM_FRAMES, SIDE, SIDE)


def tiny_model(model_type: str) -> Any:
    torch.manual_seed(0)
    vision, sizes = dict(VISION), {}
    if model_type == "xclip":
        vision |= MIT | {"num_frames": NUM_FRAMES}
        sizes = {"prompt_num_attention_heads": 2}
    if model_type != "siglip":
        sizes["projection_dim"] = 24
    names = {"clip": "CLIP", "siglip": "Siglip", "xclip": "XCLIP"}
    name = names[model_type]
    config = getattr(transformers, f"{name}Config")(text_config=TEXT, vision_config=vision, **sizes)
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():  # far from zero, so that no part of it goes unseen
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def save(model: Any, folder: Path, sizes: dict[str, Any]) -> None:
    model.save_pretrained(folder)
    values = sizes | {"image_mean": MEAN, "image_std": SD}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def features(model: Any, model_type: str) -> Any:
    pixels = (torch.from_numpy(FRAMES_THWC) / 255 - torch.tensor(MEAN)) / torch.tensor(SD)
    pixels_TCHW = pixels.permute(0, 3, 1, 2).float()
    with torch.no_grad():
        if model_type == "xclip":
            video_D = model.get_video_features(pixels_TCHW[None]).pooler_output[0]
            return video_D / video_D.norm()
        frames_TD = model.get_image_features(pixels_TCHW).pooler_output
        mean_D = (frames_TD / frames_TD.norm(dim=1, keepdim=True)).mean(0)
        return mean_D / mean_D.norm()


@pytest.mark.parametrize(
    ("model_type", "sizes", "resize"),
    [
        ("clip", CROPPED, "center_crop"),
        ("siglip", STRETCHED, "stretch"),
        ("xclip", CROPPED, "center_crop"),
    ],
)
def test_the_onnx_file_is_the_model(
    model_type: str, sizes: dict[str, Any], resize: str, tmp_path: Path
) -> None:
    model = tiny_model(model_type)
    save(model, tmp_path / "model", sizes)
    output = tmp_path / "tower.onnx"
    export_clip(str(tmp_path / "model"), output)
    exported = OnnxModel(f"path:{output}", kind="clip_embedding")
    card = exported.card
    assert card.num_frames == (NUM_FRAMES if model_type == "xclip" else None)
    assert (card.height, card.width, card.resize) == (SIDE, SIDE, resize)
    vector_D = embed(exported, FRAMES_THWC).semantic_D
    np.testing.assert_allclose(vector_D, features(model, model_type).numpy(), atol=1e-3)
    both = exported.run(np.stack([FRAMES_THWC, FRAMES_THWC[::-1]]))["embedding"]
    np.testing.assert_allclose(both[0], vector_D, atol=1e-5)
    if card.num_frames is None:
        assert embed(exported, FRAMES_THWC[:1]).semantic_D.shape == vector_D.shape
    else:
        assert np.abs(both[0] - both[1]).max() > 1e-3  # the order of frames counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"shortest_edge": 40}}, "must be equal"),
        ({"size": {"height": 32, "width": 48}}, "one square side"),
        ({"do_rescale": False}, "not scaled"),
        ({"image_mean": None}, "need three numbers"),
    ],
)
def test_preprocessing_that_the_interface_cannot_express_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    values = CROPPED | {"image_mean": MEAN, "image_std": SD}
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor": values}))
    assert read_preprocessing(tmp_path, SIDE).resize == "center_crop"
    path.write_text(json.dumps(values | change))
    with pytest.raises(ExportError, match=message):
        read_preprocessing(tmp_path, SIDE)


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"has no config\.json"):
        export_clip(str(tmp_path), tmp_path / "x.onnx")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ExportError, match="'bert', known are clip, siglip, xclip"):
        export_clip(str(tmp_path), tmp_path / "x.onnx")
    with pytest.raises(ExportError, match=r"has no preprocessor_config\.json"):
        read_preprocessing(tmp_path, SIDE)
