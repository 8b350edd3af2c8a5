"""What the copy head learns from: edits keep the moments, scenes at two moments differ."""

import numpy as np

from benchmarks.copy_edits import EDITS, NUM_FRAMES, centers, edited
from benchmarks.copy_looks import picture_clips
from tests.media_files import moving_frames, texture

FRAMES_THWC = moving_frames(NUM_FRAMES, 96, 160)


def test_every_edit_changes_the_picture_and_keeps_the_number_of_frames() -> None:
    for edit in EDITS:
        copy = edit(np.random.default_rng(0), FRAMES_THWC)
        assert len(copy) == NUM_FRAMES, edit
        assert copy.dtype == np.uint8, edit
        assert copy.shape != FRAMES_THWC.shape or (copy != FRAMES_THWC).any(), edit


def test_a_copy_shows_moments_of_its_clip_in_their_order() -> None:
    """Some are trimmed, some are whole."""
    asked = []

    def shown(moments_T: np.ndarray) -> np.ndarray:
        asked.append(moments_T)
        return np.full((len(moments_T), 64, 96, 3), 99, np.uint8)

    for seed in range(20):
        edited(np.random.default_rng(seed), shown)
    assert all((np.diff(moments) > 0).all() for moments in asked)
    assert all(moments[0] >= 0 and moments[-1] <= 1 for moments in asked)
    is_whole = [np.allclose(moments, centers(0, 1)) for moments in asked]
    assert 0 < sum(is_whole) < 20


def test_two_moments_of_a_made_scene_differ_unless_it_is_at_rest() -> None:
    picture, other = texture(300, 400, seed=1), texture(200, 200, seed=2)
    num_at_rest = 0
    for seed in range(12):
        scene = picture_clips(np.random.default_rng(seed), picture, other)
        one, two = (shown(centers(0, 1)) for shown in scene)
        changes_in_time = (one[0] != one[-1]).any()
        assert changes_in_time == (one != two).any()
        num_at_rest += not changes_in_time
    assert 0 < num_at_rest < 12
