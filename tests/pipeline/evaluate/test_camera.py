import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.evaluate.camera import (
    Judged,
    calibration_figure,
    evaluate_camera,
    judge,
    macro_f1_figure,
)
from pipeline.evaluate.camera_clips import Labelled, real_clips
from pipeline.evaluate.camera_paths import CameraPath, draw_path
from pipeline.evaluate.camera_scenes import Layer, Scene, render_scene
from pipeline.evaluate.figures import OURS
from pipeline.evaluate.motion import encoded_clip
from schemas.camera_network import CAMERA_CLASSES
from schemas.status import Failure
from tests.pipeline.score.clips import picture

TIMES_S = np.arange(24) / 8
SIZE = (200, 300)
DIAGONAL_PX = float(np.hypot(*SIZE))


def drawn(label: str, seed: int) -> CameraPath:
    name = next(c for c in CAMERA_CLASSES if c == label)
    return draw_path(np.random.default_rng(seed), name, TIMES_S, focal=0.8, background=0.5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("label", CAMERA_CLASSES)
def test_a_path_does_what_its_label_says(label: str, seed: int) -> None:
    path = drawn(label, seed)
    right, down, ahead = path.center_T3[-1] - path.center_T3[0]
    yaw, pitch = path.turn_T2[-1] - path.turn_T2[0]
    closer = np.log(path.focal_T[-1] / path.focal_T[0]) + ahead
    # Image motion in diagonals that each kind of movement alone would make at the subject.
    made = {
        "pan_right": 0.8 * right, "pan_left": -0.8 * right, "pan_up": -0.8 * down,
        "pan_down": 0.8 * down, "tilt_right": 0.8 * yaw, "tilt_left": -0.8 * yaw,
        "tilt_up": 0.8 * pitch, "tilt_down": -0.8 * pitch, "zoom_in": 0.27 * closer,
        "zoom_out": -0.27 * closer,
    }  # fmt: skip
    if label.startswith("around"):
        assert (right > 0) == (label == "around_right")
        # Of the arc alone the subject, at depth 1, would stay in the middle of the picture.
        ratio = (path.angles_T3[-1, 1] - path.angles_T3[0, 1]) / right
        assert -1.6 < ratio < -0.4
    elif label in made:
        assert max(made, key=lambda kind: made[kind]) == label
    else:
        assert not path.turn_T2.any()
        assert np.abs(path.center_T3[:, :2]).max() < 0.1


def test_a_point_of_the_scene_is_seen_where_projection_puts_it() -> None:
    """A camera that moves, turns, rolls and zooms, before a slanted plane with one bright spot."""
    plane = np.array([0.1, 0.25, 0.6])
    spot_2 = np.array([0.06, -0.04])  # in diagonals from the center of the first view
    texture = np.zeros((300, 300, 2), np.uint8)
    texture[..., 1] = 255
    pixels_per_diagonal, offset = 400.0, 150.0
    at = (round(offset + spot_2[0] * 400), round(offset + spot_2[1] * 400))
    texture[at[1] - 4 : at[1] + 5, at[0] - 4 : at[0] + 5, 0] = 255
    layer = Layer((texture,), pixels_per_diagonal, np.array([offset, offset]) / 400, plane,
                  (0.0, 0.0, 0.0))  # fmt: skip
    center = np.array([0.12, -0.05, 0.2])
    pitch, yaw, roll = 0.05, -0.1, 0.07
    path = CameraPath(
        label=None, is_dolly=None, times_T=np.zeros(2),
        center_T3=np.stack([center] * 2), angles_T3=np.array([[pitch, yaw, roll]] * 2),
        turn_T2=np.zeros((2, 2)), focal_T=np.full(2, 0.8),
    )  # fmt: skip
    frame = next(render_scene(Scene((layer,), ()), path, size_HW=SIZE))[..., 0]
    y, x = np.nonzero(frame > 100)
    # The same point by hand: its depth from the plane, then world to camera with cv2's rotations.
    direction = np.array([*(spot_2 / 0.8), 1.0])
    point = direction / (plane @ direction)
    about = [cv2.Rodrigues(axis * angle)[0] for axis, angle in
             ((np.array([0.0, 1, 0]), yaw), (np.array([1.0, 0, 0]), pitch),
              (np.array([0.0, 0, 1]), roll))]  # fmt: skip
    seen = (about[0] @ about[1] @ about[2]).T @ (point - center)
    wanted = 0.8 * DIAGONAL_PX * seen[:2] / seen[2] + (np.array(SIZE[::-1]) - 1) / 2
    assert np.array([x.mean(), y.mean()]) == pytest.approx(wanted, abs=0.7)


def judged(label: str | None, found: str | None, confidence: float = 0.5) -> Judged:
    return Judged("clip", label, found, confidence, is_sure=False)


def test_macro_f1_by_hand() -> None:
    """a: 2 of 3 found and one false alarm, F1 2/3; b: F1 1; mixed motion called a is wrong."""
    clips = [judged("a", "a")] * 2 + [judged("a", None), judged(None, "a")] + [judged("b", "b")] * 3
    figure = macro_f1_figure("f1", OURS, clips, ("a", "b"))
    assert figure.value == pytest.approx((2 / 3 + 1) / 2)
    assert figure.low < figure.value <= figure.high <= 1


def test_calibration_error_by_hand() -> None:
    """Ten clips at 0.9 of which seven are right, and ten at 0.3 of which three are."""
    clips = [judged("a", "a" if n < 7 else "b", 0.9) for n in range(10)]
    clips += [judged("a", "a" if n < 3 else "b", 0.3) for n in range(10)]
    assert calibration_figure("ece", OURS, clips).value == pytest.approx(0.1)


def test_both_methods_answer_and_a_failure_counts_as_no_answer(tmp_path: Path) -> None:
    frames = [picture(200, 300)] * 30
    clip = encoded_clip(tmp_path / "still.mp4", frames, 24.0)

    def clips() -> Iterator[Labelled]:
        yield Labelled("still", "static_shot", clip)
        yield Labelled("gone", "static_shot", Failure(error_class="no_frames", error="none"))

    for found in judge(clips()).values():
        assert [j.found for j in found] == ["static_shot", ""]


def test_the_whole_part_runs_on_a_folder_of_media(tmp_path: Path) -> None:
    (tmp_path / "photos/kodak").mkdir(parents=True)
    (tmp_path / "gt").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"photos/kodak/{number}.png"), picture(seed=number))
    frames = [picture(200, 300, seed=n // 30) for n in range(90)]
    encoded_clip(tmp_path / "still.mp4", frames, 24.0)
    (tmp_path / "gt/camera_motion.json").write_text(json.dumps({"still.mp4": "static"}))
    (tmp_path / "gt/shot_cuts.json").write_text(json.dumps({"still.mp4": {"cuts": [30, 60]}}))
    entry = {
        "name": "still.mp4",
        "fps": 24.0,
        "frames": 90,
        "width": 300,
        "height": 200,
        "tags": [],
    }
    (tmp_path / "media.jsonl").write_text(json.dumps(entry) + "\n")
    (real,) = real_clips(tmp_path)
    assert not isinstance(real.clip, Failure)
    assert (real.clip.row.start_frame, real.clip.row.end_frame) == (0, 30)
    figures = evaluate_camera(tmp_path, num_rendered=2)
    by_name = {(f.measure, f.method): f for f in figures}
    assert by_name["real: right class", OURS].value == 1.0
    assert by_name["rendered: macro-F1, 14 classes", OURS].count == 2
