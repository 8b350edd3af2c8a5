from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.evaluate.motion import CameraMotion, encoded_clip, render_motion
from pipeline.score.camera import CameraStage
from pipeline.score.config import CameraConfig, FlowConfig
from pipeline.score.flow import FlowEstimator
from pipeline.score.motion import MotionStage
from pipeline.score.sampler import Clip
from schemas.model_card import ModelCard
from schemas.scores import MotionScore
from schemas.status import Failure
from tests.pipeline.score.clips import clip_of, picture


def score(clip: Clip) -> MotionScore | Failure:
    stage = MotionStage(FlowEstimator(FlowConfig()))
    stage.setup()
    (result,) = stage.process([clip])
    return result


def pan(
    speed: float, *, size: tuple[int, int] = (360, 640), fps: float = 24.0, seconds: float = 1.3
) -> Clip:
    motion = CameraMotion(speed=speed, content_direction_deg=30.0)
    num_frames = max(2, round(seconds * fps))
    return clip_of(
        list(render_motion(picture(), motion, size_HW=size, fps=fps, num_frames=num_frames)), fps
    )


@pytest.mark.parametrize("speed", [1.0, 5.0, 20.0, 60.0])
def test_a_pan_of_known_speed_is_measured_within_a_tenth(speed: float) -> None:
    result = score(pan(speed))
    assert isinstance(result, MotionScore)
    assert result.camera_speed == pytest.approx(speed, rel=0.1)
    assert result.speed == pytest.approx(speed, rel=0.1)
    assert result.object_speed < 0.15 * speed


def test_the_speed_does_not_depend_on_size_or_frame_rate() -> None:
    speeds = []
    for size, fps in (((240, 426), 12.0), ((720, 1280), 24.0), ((360, 640), 60.0)):
        result = score(pan(8.0, size=size, fps=fps))
        assert isinstance(result, MotionScore)
        speeds.append(result.speed)
    assert max(speeds) / min(speeds) < 1.1


def test_a_flow_network_that_gives_no_number_fails_motion_and_camera(tmp_path: Path) -> None:
    nothing = numpy_helper.from_array(np.full((1, 64, 64, 2), np.nan, np.float32))
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, 2, 64, 64, 3])
    flow = helper.make_tensor_value_info("flow", TensorProto.FLOAT, [1, 64, 64, 2])
    nodes = [helper.make_node("Constant", [], ["flow"], value=nothing)]
    graph = helper.make_graph(nodes, "g", [frames], [flow])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    card = ModelCard(
        kind="flow", model_id="nothing", interface_version=1, num_frames=2, height=64, width=64,
        resize="stretch", config_sha256="",
    )  # fmt: skip
    helper.set_model_props(model, card.to_metadata())
    onnx.save(model, str(tmp_path / "flow.onnx"))
    estimator = FlowEstimator(FlowConfig(model=f"path:{tmp_path / 'flow.onnx'}"))
    for stage in (MotionStage(estimator), CameraStage(CameraConfig(model="geometry"), estimator)):
        stage.setup()
        [result] = stage.process([pan(5.0)])
        assert isinstance(result, Failure)
        assert (result.error_class, result.error) == ("not_finite", "nothing: not finite in flow")


def test_noise_on_a_still_picture_is_not_motion() -> None:
    rng = np.random.default_rng(1)
    still = picture().astype(np.int16)
    frames = [
        np.clip(still + rng.normal(0, 6, still.shape), 0, 255).astype(np.uint8) for _ in range(24)
    ]
    result = score(clip_of(frames))
    assert isinstance(result, MotionScore)
    assert result.speed < 0.3
    assert result.moving_area < 0.01


def test_an_object_before_a_resting_camera_is_object_motion() -> None:
    background, thing = picture(), picture(120, 160, seed=5)
    frames = []
    for index in range(32):
        frame = background.copy()
        left = 40 + 6 * index
        frame[120:240, left : left + 160] = thing
        frames.append(frame)
    result = score(clip_of(frames))
    assert isinstance(result, MotionScore)
    assert result.camera_speed < 0.5
    area = 120 * 160 / (360 * 640)
    true_speed = 6 * 24 / np.hypot(360, 640) * 100 * area
    assert result.object_speed == pytest.approx(true_speed, rel=0.35)
    assert result.moving_area == pytest.approx(area, rel=0.5)


def test_the_codec_does_not_change_the_speed(tmp_path: object) -> None:
    motion = CameraMotion(speed=10.0, content_direction_deg=90.0)
    frames = list(render_motion(picture(), motion, size_HW=(240, 426), fps=30.0, num_frames=40))
    result = score(encoded_clip(tmp_path / "pan.mp4", frames, 30.0))  # type: ignore[operator]
    assert isinstance(result, MotionScore)
    assert result.speed == pytest.approx(10.0, rel=0.1)


def test_one_frame_and_one_color_fail_with_their_reason() -> None:
    one = score(clip_of([picture()]))
    flat = score(clip_of([np.full((360, 640, 3), 90, np.uint8)] * 12))
    assert isinstance(one, Failure)
    assert one.error_class == "too_few_frames"
    assert isinstance(flat, Failure)
    assert flat.error_class == "no_texture"
