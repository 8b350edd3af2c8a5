import cv2
import numpy as np
import pytest

from pipeline.evaluate.motion import CameraMotion, render_motion
from pipeline.score.config import TextConfig
from pipeline.score.text import TextStage, union_area
from pipeline.score.text_reader import TextBox
from schemas.scores import TextScore
from tests.pipeline.score.clips import Images, clip_of, picture

SIZE = (360, 640)
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@pytest.fixture(scope="module")
def stage() -> TextStage:
    made = TextStage(TextConfig())
    made.setup()
    return made


def background(num_frames: int, speed: float = 8.0) -> list[Images]:
    smooth = np.asarray(cv2.GaussianBlur(picture(), (0, 0), 5), np.uint8)
    motion = CameraMotion(speed, 200.0)
    return list(render_motion(smooth, motion, size_HW=SIZE, fps=24.0, num_frames=num_frames))


def write(frame: Images, text: str, bottom: int, *, scale: float = 0.8) -> Rectangle:
    """White letters with a black outline, centered; returns the rectangle that they fill."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, scale, 2)
    left = (SIZE[1] - width) // 2
    for color, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        cv2.putText(frame, text, (left, bottom), font, scale, color, thickness, cv2.LINE_AA)
    return left, bottom - height, left + width, bottom + below


def score(stage: TextStage, frames: list[Images]) -> TextScore:
    (result,) = stage.process([clip_of(frames)])
    assert isinstance(result, TextScore)
    return result


def test_subtitles_that_change_are_a_band_around_their_lines(stage: TextStage) -> None:
    frames = background(48)
    lines = ["Where are you going", "To the old harbor", "Wait for me there"]
    rectangles = [write(frame, lines[i // 16], 330) for i, frame in enumerate(frames)]
    result = score(stage, frames)
    band = result.subtitle_band
    assert band is not None
    true_top = min(r[1] for r in rectangles) / 360
    true_bottom = max(r[3] for r in rectangles) / 360
    shared = min(band.bottom, true_bottom) - max(band.top, true_top)
    assert shared >= 0.95 * (true_bottom - true_top)
    assert band.bottom - band.top < 2.5 * (true_bottom - true_top)
    assert any(track.changes for track in result.tracks)
    assert "harbor" in " ".join(track.text for track in result.tracks) or len(result.tracks) == 1


def test_a_title_in_the_middle_is_text_but_no_subtitle(stage: TextStage) -> None:
    frames = background(24)
    for frame in frames:
        left, top, right, bottom = write(frame, "THE LONG ROAD", 190, scale=1.6)
    result = score(stage, frames)
    assert result.subtitle_band is None
    (track,) = result.tracks
    assert track.presence == 1.0
    assert track.text.replace(" ", "") == "THELONGROAD"
    area = (right - left) * (bottom - top) / (360 * 640)
    assert result.mean_area == pytest.approx(area, rel=0.5)
    assert result.persistent_area == pytest.approx(result.mean_area, rel=0.3)


def test_a_picture_without_text_is_scanned_once_and_shows_none(stage: TextStage) -> None:
    result = score(stage, background(24))
    assert (result.mean_area, result.max_area, result.tracks) == (0.0, 0.0, ())
    assert result.num_frames == TextConfig().num_scan_frames


def test_overlapping_boxes_count_once() -> None:
    def box(left: float, top: float, right: float, bottom: float) -> TextBox:
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        return TextBox(np.array(corners), 1.0)

    assert union_area([]) == 0
    assert union_area([box(0.25, 0.25, 0.75, 0.5)]) == pytest.approx(0.125, rel=0.03)
    both = [box(0.25, 0.25, 0.75, 0.5), box(0.5, 0.25, 1.0, 0.5)]
    assert union_area(both) == pytest.approx(0.1875, rel=0.03)
