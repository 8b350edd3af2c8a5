from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluate import text
from pipeline.evaluate.figures import OURS
from pipeline.evaluate.text import PEER, evaluate_text
from pipeline.score.text_reader import TextBox


def test_illegible_words_count_neither_way_where_no_legible_one_lies() -> None:
    def square(left: int, ignore: bool) -> dict[str, object]:
        right = left + 9
        return {"polygon": [left, 0, right, 0, right, 9, left, 9], "ignore": ignore}

    wanted, ignored, words = text.labelled_areas(
        [square(0, False), square(20, True), square(5, True)], (10, 40)
    )
    assert wanted[:, :10].all()
    assert wanted.sum() == 100
    assert ignored[:, 20:30].all()
    assert not (ignored & wanted).any()
    assert len(words) == 1


def test_boxes_in_shares_cover_their_pixels() -> None:
    corners = np.array([[0.25, 0.5], [0.75, 0.5], [0.75, 1.0], [0.25, 1.0]])
    mask = text.box_mask([TextBox(corners, 1.0)], (100, 200))
    assert mask[50:100, 50:150].all()
    assert mask.sum() == pytest.approx(50 * 100, rel=0.03)


def test_agreement_is_one_for_equal_areas_and_falls_with_what_is_missed() -> None:
    area = np.zeros((10, 10), bool)
    area[:4] = True
    half = area.copy()
    half[:2] = False
    assert text._iou(area, area) == 1
    assert text._iou(half, area) == 0.5
    assert text._iou(np.zeros_like(area), area) == 0


def test_labelled_photographs_agree_better_than_the_peer_does(labelled_media: Path) -> None:
    figures = evaluate_text(labelled_media, long_side_px=960)
    iou = {figure.method: figure for figure in figures if figure.measure == "area IoU"}
    assert iou[OURS].count >= 5
    assert iou[OURS].value > iou[PEER].value
