from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.evaluate.figures import OURS
from pipeline.evaluate.motion import CameraMotion, evaluate_motion, render_motion
from tests.media_files import texture


def test_the_rendered_content_moves_by_the_stated_pixels() -> None:
    # Diagonal 100 px, 20 %/s at 10 fps: 2 px per frame to the right.
    motion = CameraMotion(speed=20.0, content_direction_deg=0.0)
    frames = list(render_motion(texture(60, 80), motion, size_HW=(60, 80), fps=10.0, num_frames=6))
    for earlier, later in pairwise(frames):
        difference = earlier[5:-5, 5:-7].astype(int) - later[5:-5, 7:-5]
        assert np.abs(difference).max() <= 2


def test_a_zoom_enlarges_about_the_center() -> None:
    motion = CameraMotion(zoom=float(np.log(2)))
    first, last = (
        frame
        for index, frame in enumerate(
            render_motion(texture(64, 96), motion, size_HW=(64, 96), fps=4.0, num_frames=5)
        )
        if index in (0, 4)
    )
    # After a second everything is twice as large: a quarter off the center lay an eighth off it.
    assert np.abs(last[16, 24].astype(int) - first[24, 36]).max() <= 12
    assert np.abs(last[48, 72].astype(int) - first[40, 60]).max() <= 12


def test_moved_photographs_are_measured_within_a_tenth(labelled_media: Path) -> None:
    figures = evaluate_motion(labelled_media, max_clips=4)
    ours = {figure.measure: figure for figure in figures if figure.method == OURS}
    assert ours["speed error"].count == 4
    assert ours["speed error"].value < 0.1
    assert ours["direction error (degrees)"].value < 3
