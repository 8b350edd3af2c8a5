from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.media.config import MediaLimits
from pipeline.onnx_model import WeightsError
from pipeline.score.config import QualityConfig
from pipeline.score.natural_scene import patch_features
from pipeline.score.quality import QualityStage, niqe
from schemas.model_card import ModelCard
from schemas.scores import QualityScore
from schemas.status import Failure
from tests.pipeline.score.clips import clip_of, picture


def photo() -> np.ndarray:
    """A real photograph that a dependency carries (NASA, public domain)."""
    data = pytest.importorskip("skimage.data")
    image = cv2.resize(data.astronaut(), (480, 480), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def test_a_photograph_becomes_worse_with_blur_and_with_compression() -> None:
    clean = photo()
    blurred = cv2.GaussianBlur(clean, (0, 0), 3)
    _, data = cv2.imencode(".jpg", clean, [cv2.IMWRITE_JPEG_QUALITY, 8])
    blocky = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    scores = [niqe(np.asarray(image, np.uint8)) for image in (clean, blurred, blocky)]
    assert all(value is not None for value in scores)
    assert scores[0] < scores[1]  # type: ignore[operator]
    assert scores[0] < scores[2]  # type: ignore[operator]


def test_gaussian_noise_has_the_shape_two_in_its_own_statistics() -> None:
    # MSCN coefficients of white noise are nearly Gaussian, and neighbors hardly correlate.
    noise = np.random.default_rng(0).normal(128, 25, (384, 384))
    features = patch_features(noise, 96)
    assert features.shape == (16, 36)
    assert features[:, 0].mean() == pytest.approx(2.5, abs=0.6)
    assert np.abs(features[:, [3, 7, 11, 15]]).max() < 0.15


def test_small_and_flat_pictures_fail_with_their_reason() -> None:
    stage = QualityStage(QualityConfig(), MediaLimits())
    stage.setup()
    small = clip_of([picture(64, 64)] * 2)
    flat = clip_of([np.full((240, 320, 3), 50, np.uint8)] * 2)
    results = stage.process([small, flat])
    assert [r.error_class for r in results if isinstance(r, Failure)] == [
        "too_small",
        "flat_picture",
    ]


def brightness_network(path: Path, kind: str = "quality", *, last: str = "Identity") -> str:
    """A network whose quality is the mean of the frames, through one more operator."""
    card = ModelCard(
        kind=kind, model_id="brightness", interface_version=1, num_frames=4, height=32,
        width=48, resize="stretch", config_sha256="",
    )  # fmt: skip
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 4, 32, 48, 3])
    quality = helper.make_tensor_value_info("quality", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node(last, ["mean"], ["quality"]),
    ]
    graph = helper.make_graph(nodes, "g", [frames], [quality])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, card.to_metadata())
    onnx.save(model, str(path))
    return f"path:{path}"


def test_a_configured_network_stands_beside_niqe(tmp_path: Path) -> None:
    stage = QualityStage(
        QualityConfig(model=brightness_network(tmp_path / "quality.onnx")), MediaLimits()
    )
    stage.setup()
    image = picture()
    (result,) = stage.process([clip_of([image] * 8)])
    assert isinstance(result, QualityScore)
    assert result.model_id == "brightness"
    assert result.learned == pytest.approx(float(image.mean()), abs=1.5)


def test_a_network_that_gives_no_number_fails_the_clip(tmp_path: Path) -> None:
    name = brightness_network(tmp_path / "quality.onnx", last="Acos")  # of values above one
    stage = QualityStage(QualityConfig(model=name), MediaLimits())
    stage.setup()
    (result,) = stage.process([clip_of([picture()] * 8)])
    assert result == Failure(error_class="not_finite", error="brightness: not finite in quality")


def test_ours_is_the_default_and_niqe_can_be_had_alone() -> None:
    clip = clip_of([picture()] * 8)
    found = []
    for config in (QualityConfig(), QualityConfig(model="niqe")):
        stage = QualityStage(config, MediaLimits())
        stage.setup()
        (score,) = stage.process([clip])
        assert isinstance(score, QualityScore)
        found.append(score)
    ours, alone = found
    assert (ours.model_id, alone.model_id) == ("quality-net-1", "niqe")
    assert ours.niqe == alone.niqe
    assert ours.learned is not None
    assert alone.learned is None


def test_the_shipped_network_sees_how_blurred_a_photograph_is() -> None:
    stage = QualityStage(QualityConfig(model="quality"), MediaLimits())
    stage.setup()
    clean = np.repeat(photo()[..., None], 3, axis=-1)
    levels = [clean, *(cv2.GaussianBlur(clean, (0, 0), sigma) for sigma in (1.3, 2.8))]
    scores = stage.process([clip_of([np.asarray(level, np.uint8)] * 8) for level in levels])
    found = [score for score in scores if isinstance(score, QualityScore)]
    learned = [score.learned or 0.0 for score in found]
    assert learned[0] > 0.8 > learned[1] > learned[2]
    blur_px = [score.blur_px or 0.0 for score in found]
    assert blur_px[0] < 0.3 < blur_px[1] < blur_px[2]
    assert {score.model_id for score in found} == {"quality-net-1"}


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    name = brightness_network(tmp_path / "flow.onnx", kind="flow")
    with pytest.raises(WeightsError, match="kind is 'flow'"):
        QualityStage(QualityConfig(model=name), MediaLimits()).setup()
