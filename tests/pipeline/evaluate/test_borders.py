from pathlib import Path

import numpy as np

from pipeline.evaluate import borders
from pipeline.evaluate.borders import evaluate_borders
from pipeline.evaluate.figures import OURS
from tests.pipeline.score.clips import clip_of, picture


def test_bars_are_drawn_where_they_are_said_to_be() -> None:
    frames = np.stack([picture(120, 160)] * 2)
    barred = borders._draw(frames, (10, 20, 0, 30), (9, 9, 9))
    assert (barred[:, :20] == 9).all()
    assert (barred[:, 90:] == 9).all()
    assert (barred[:, :, :10] == 9).all()
    assert np.array_equal(barred[:, 20:90, 10:], frames[:, 20:90, 10:])


def test_the_peer_finds_black_bars_and_misses_white_ones() -> None:
    frames = np.stack([picture(120, 160)] * 4)
    for color, found in (((0, 0, 0), (0, 20, 0, 30)), ((255, 255, 255), (0, 0, 0, 0))):
        clip = clip_of(list(borders._draw(frames, (0, 20, 0, 30), color)))
        assert borders._threshold(clip) == found


def test_the_error_is_that_of_the_worst_side() -> None:
    assert borders._error((0, 4, 0, 9), (0, 5, 0, 5)) == 4


def test_bars_over_real_clips_are_found(labelled_media: Path) -> None:
    figures = evaluate_borders(labelled_media, max_clips=2)
    ours = {figure.measure: figure for figure in figures if figure.method == OURS}
    assert ours["within 2 px"].count == 2
    assert ours["within 2 px"].value == 1
    assert ours["false alarms"].value == 0
