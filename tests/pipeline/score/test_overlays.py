from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.evaluate.motion import CameraMotion, render_motion
from pipeline.score.config import OverlaysConfig
from pipeline.score.overlays import OverlaysStage
from schemas.model_card import ModelCard
from schemas.scores import Box, OverlayScore
from tests.pipeline.score.clips import Images, clip_of, picture

SIZE = (360, 640)


def moving(speed: float = 10.0) -> list[Images]:
    motion = CameraMotion(speed, 160.0)
    return list(render_motion(picture(), motion, size_HW=SIZE, fps=24.0, num_frames=60))


def with_logo(frames: list[Images], left: int, top: int, opacity: float) -> list[Images]:
    """A white ring and bar, 60 x 40 pixels, blended over every frame."""
    logo = np.zeros((40, 60), np.float32)
    cv2.circle(logo, (20, 20), 15, 1.0, 4)
    cv2.rectangle(logo, (40, 6), (54, 34), 1.0, 4)
    out = []
    for frame in frames:
        marked = frame.astype(np.float32)
        place = marked[top : top + 40, left : left + 60]
        place += opacity * logo[..., None] * (255 - place)
        out.append(np.asarray(marked, np.uint8))
    return out


def score(frames: list[Images], config: OverlaysConfig | None = None) -> OverlayScore:
    stage = OverlaysStage(config or OverlaysConfig())
    stage.setup()
    (result,) = stage.process([clip_of(frames)])
    assert isinstance(result, OverlayScore)
    return result


def test_a_logo_that_rests_on_a_moving_picture_is_found() -> None:
    result = score(with_logo(moving(), 560, 16, opacity=0.7))
    assert result.comparable
    (logo,) = result.overlays
    assert logo.kind == "corner_logo"
    true = Box(left=564 / 640, top=20 / 360, right=617 / 640, bottom=53 / 360)
    for side in ("left", "top", "right", "bottom"):
        assert abs(getattr(logo.box, side) - getattr(true, side)) < 0.015


def test_a_mark_in_the_middle_is_no_corner_logo() -> None:
    (mark,) = score(with_logo(moving(), 290, 160, opacity=0.7)).overlays
    assert mark.kind == "watermark"


def test_a_moving_picture_without_overlay_has_none() -> None:
    result = score(moving())
    assert result.comparable
    assert result.overlays == ()


def test_nothing_is_claimed_of_a_resting_picture() -> None:
    result = score(with_logo(moving(speed=0.0), 560, 16, opacity=0.7))
    assert not result.comparable
    assert result.overlays == ()


def test_a_detector_takes_the_place_of_the_gradient(tmp_path: Path) -> None:
    """The detector always sees one banner, and a second one that is too weak."""
    card = ModelCard(
        kind="overlay", model_id="constant", interface_version=1, num_frames=1, height=32,
        width=32, resize="stretch", config_sha256="",
    )  # fmt: skip
    values: dict[str, np.ndarray] = {
        "boxes": np.array([[[0.1, 0.8, 0.9, 0.95], [0.0, 0.0, 0.1, 0.1]]], np.float32),
        "scores": np.array([[0.9, 0.2]], np.float32),
        "classes": np.array([[3, 0]], np.int64),
    }
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 1, 32, 32, 3])
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in values.items()
    ]
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in values.items()
    ]
    graph = helper.make_graph(nodes, "g", [frames], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, card.to_metadata())
    onnx.save(model, str(tmp_path / "detector.onnx"))
    result = score(moving(), OverlaysConfig(model=f"path:{tmp_path / 'detector.onnx'}"))
    (banner,) = result.overlays
    assert result.model_id == "constant"
    assert banner.kind == "banner"
    assert banner.presence == 1.0
    assert abs(banner.box.area - 0.12) < 1e-6


def test_lines_along_the_camera_path_and_the_edges_of_bars_are_no_overlays() -> None:
    frames = list(
        render_motion(picture(), CameraMotion(8.0, 180.0), size_HW=SIZE, fps=24.0, num_frames=60)
    )
    for frame in frames:
        frame[:45] = 0
        frame[315:] = 0
    result = score(frames)
    assert result.comparable
    assert result.overlays == ()
