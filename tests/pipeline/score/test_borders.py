import numpy as np
import pytest

from pipeline.evaluate.motion import CameraMotion, encoded_clip, render_motion
from pipeline.score.borders import BordersStage
from pipeline.score.config import BordersConfig
from schemas.scores import BorderScore
from tests.pipeline.score.clips import Images, clip_of, picture

SIZE = (360, 640)


def moving(num_frames: int = 24) -> list[Images]:
    motion = CameraMotion(6.0, 20.0)
    return list(render_motion(picture(), motion, size_HW=SIZE, fps=24.0, num_frames=num_frames))


def score(frames: list[Images]) -> tuple[int, int, int, int]:
    (result,) = BordersStage(BordersConfig()).process([clip_of(frames)])
    assert isinstance(result, BorderScore)
    return result.left_px, result.top_px, result.right_px, result.bottom_px


def with_bars(
    frames: list[Images], ltrb: tuple[int, int, int, int], color: tuple[int, int, int]
) -> list[Images]:
    left, top, right, bottom = ltrb
    out = []
    for frame in frames:
        barred = np.empty_like(frame)
        barred[:] = color
        barred[top : 360 - bottom, left : 640 - right] = frame[
            top : 360 - bottom, left : 640 - right
        ]
        out.append(barred)
    return out


@pytest.mark.parametrize("color", [(0, 0, 0), (16, 16, 16), (255, 255, 255), (200, 40, 60)])
@pytest.mark.parametrize(
    "bars", [(0, 45, 0, 45), (110, 0, 110, 0), (80, 40, 80, 40), (0, 0, 0, 33)]
)
def test_bars_are_found_to_the_pixel(
    bars: tuple[int, int, int, int], color: tuple[int, int, int]
) -> None:
    assert score(with_bars(moving(8), bars, color)) == bars


def test_bars_survive_noise_and_the_codec(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for frame in with_bars(moving(), (0, 50, 0, 50), (6, 6, 6)):
        noisy = frame.astype(np.int16) + rng.normal(0, 2, frame.shape)
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    clip = encoded_clip(tmp_path / "bars.mp4", frames, 24.0)  # type: ignore[operator]
    (result,) = BordersStage(BordersConfig()).process([clip])
    assert isinstance(result, BorderScore)
    assert abs(result.top_px - 50) <= 1
    assert abs(result.bottom_px - 50) <= 1
    assert result.left_px == result.right_px == 0


def test_a_picture_without_bars_has_none() -> None:
    assert score(moving()) == (0, 0, 0, 0)


def test_a_dark_edge_without_a_straight_end_is_no_bar() -> None:
    y, x = np.mgrid[:360, :640]
    horizon = 90 + 40 * np.sin(x / 60)
    frames = []
    for frame in moving(8):
        night = frame.copy()
        night[y < horizon] = 3
        frames.append(night)
    assert score(frames)[1] == 0


def test_a_bright_sky_above_hills_is_no_bar() -> None:
    y, x = np.mgrid[:360, :640]
    horizon = 120 + 50 * np.sin(x / 80) + 15 * np.sin(x / 17)
    frames = []
    for frame in moving(8):
        day = frame.copy()
        day[y < horizon] = 255
        frames.append(day)
    assert score(frames)[1] == 0


def test_a_dark_clip_is_left_alone() -> None:
    frames = [np.asarray(frame // 40, np.uint8) for frame in moving(8)]
    assert score(with_bars(frames, (0, 60, 0, 60), (0, 0, 0))) == (0, 0, 0, 0)
