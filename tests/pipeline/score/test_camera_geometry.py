import numpy as np
import pytest

from pipeline.evaluate.motion import CameraMotion, render_motion
from pipeline.score.camera import CameraStage
from pipeline.score.config import CameraConfig, FlowConfig
from pipeline.score.flow import FlowEstimator
from schemas.scores import CameraScore
from schemas.status import Failure
from tests.pipeline.score.clips import Images, clip_of, picture

SIZE = (360, 640)


def score(frames: list[Images], fps: float = 24.0) -> CameraScore | Failure:
    stage = CameraStage(CameraConfig(model="geometry"), FlowEstimator(FlowConfig()))
    stage.setup()
    (result,) = stage.process([clip_of(frames, fps)])
    return result


def rendered(motion: CameraMotion, num_frames: int = 48) -> list[Images]:
    return list(render_motion(picture(), motion, size_HW=SIZE, fps=24.0, num_frames=num_frames))


def layered(speed_far: float, speed_near: float, num_frames: int = 48) -> list[Images]:
    """A far and a near layer (the lower half) that pass at different speeds to the left."""
    far = list(
        render_motion(picture(), CameraMotion(speed_far, 180.0), size_HW=SIZE, fps=24.0,
                      num_frames=num_frames)
    )  # fmt: skip
    near = list(
        render_motion(picture(seed=3), CameraMotion(speed_near, 180.0), size_HW=SIZE, fps=24.0,
                      num_frames=num_frames)
    )  # fmt: skip
    mask = np.zeros((*SIZE, 1), bool)
    mask[220:] = True
    mask[120:220, 100:260] = True
    return [np.where(mask, n, f) for f, n in zip(far, near, strict=True)]


def turning(rate_deg: float, num_frames: int = 48) -> list[Images]:
    """A camera (60 degrees wide) that turns to the right before a far picture, in perspective."""
    import cv2

    height, width = SIZE
    focal = width / 2 / np.tan(np.radians(30))
    big = picture(900, 2400)
    frames = []
    for index in range(num_frames):
        angle = np.radians(rate_deg * (index - num_frames / 2) / 24)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                         [-np.sin(angle), 0, np.cos(angle)]])  # fmt: skip
        inner = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        outer = np.array([[focal, 0, 1200], [0, focal, 450], [0, 0, 1]])
        homography = outer @ turn @ np.linalg.inv(inner)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpPerspective(big, homography, (width, height), flags=flags))
    return [np.asarray(frame, np.uint8) for frame in frames]


def test_a_resting_camera_is_static_even_behind_a_moving_object() -> None:
    frames = []
    for index in range(48):
        frame = picture()
        frame[100:200, 20 + 8 * index : 180 + 8 * index] = picture(100, 160, seed=4)[
            :, : max(0, min(160, 640 - 20 - 8 * index))
        ]
        frames.append(frame)
    result = score(frames)
    assert isinstance(result, CameraScore)
    assert result.movement == "static_shot"
    assert result.confidence > 0.5


@pytest.mark.parametrize(("rate", "movement"), [(0.25, "zoom_in"), (-0.25, "zoom_out")])
def test_a_zoom_is_found_with_its_rate(rate: float, movement: str) -> None:
    result = score(rendered(CameraMotion(zoom=rate)))
    assert isinstance(result, CameraScore)
    assert result.movement == movement
    assert result.zoom == pytest.approx(rate, rel=0.1)
    assert result.confidence > 0.7


@pytest.mark.parametrize(
    ("content_direction_deg", "endings"),
    [(180.0, "right"), (0.0, "left"), (90.0, "up"), (270.0, "down")],
)
def test_directions_are_the_cameras(content_direction_deg: float, endings: str) -> None:
    result = score(rendered(CameraMotion(10.0, content_direction_deg)))
    assert isinstance(result, CameraScore)
    assert result.movement in (f"pan_{endings}", f"tilt_{endings}")
    # A flat picture has no parallax: which of the two it is stays in doubt.
    assert 0.3 < result.confidence < 0.9


def test_layers_at_different_speeds_are_a_translation() -> None:
    result = score(layered(6.0, 12.0))
    assert isinstance(result, CameraScore)
    assert result.movement == "pan_right"
    assert result.truck > 5.0
    assert abs(result.yaw) < 1.0


def test_a_turn_in_perspective_is_a_rotation() -> None:
    result = score(turning(15.0))
    assert isinstance(result, CameraScore)
    assert result.movement == "tilt_right"
    assert result.yaw > 5.0
    assert abs(result.truck) < 0.3 * result.yaw


def test_a_background_that_moves_against_the_foreground_is_an_arc() -> None:
    far = list(render_motion(picture(), CameraMotion(8.0, 0.0), size_HW=SIZE, fps=24.0,
                             num_frames=48))  # fmt: skip
    near = list(render_motion(picture(seed=3), CameraMotion(8.0, 180.0), size_HW=SIZE, fps=24.0,
                              num_frames=48))  # fmt: skip
    frames = []
    for back, front in zip(far, near, strict=True):
        frame = back.copy()
        frame[250:] = front[250:]
        frames.append(frame)
    result = score(frames)
    assert isinstance(result, CameraScore)
    assert result.movement == "around_right"
    assert result.confidence <= 0.5


def test_shake_without_a_direction_is_handheld() -> None:
    rng = np.random.default_rng(2)
    offsets = np.cumsum(rng.normal(0, 3.0, (60, 2)), axis=0)
    offsets = 8 * (offsets - offsets.mean(axis=0)) / offsets.std(axis=0)
    offsets += 9 * np.sin(np.arange(60)[:, None] * 2 * np.pi * 2.2 / 24 + np.array([0, 1]))
    big = picture(520, 800)
    frames = []
    for dx, dy in offsets - offsets.mean(axis=0):
        top, left = round(80 + dy), round(80 + dx)
        frames.append(big[top : top + 360, left : left + 640])
    result = score(frames)
    assert isinstance(result, CameraScore)
    assert result.movement == "handheld_shot"
    assert result.jitter > 0.15


def test_a_mixed_movement_gets_no_class() -> None:
    result = score(rendered(CameraMotion(speed=7.0, content_direction_deg=135.0, zoom=0.25)))
    assert isinstance(result, CameraScore)
    assert result.movement is None


def test_roll_is_measured_and_is_no_class() -> None:
    result = score(rendered(CameraMotion(roll_deg=20.0)))
    assert isinstance(result, CameraScore)
    assert result.movement is None
    assert result.roll == pytest.approx(20.0, rel=0.1)
