"""The counting rules of the shot evaluation, on answers known in advance."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.figures import OURS, EvaluationError
from pipeline.evaluate.shot_labels import (
    CUTS_FILE,
    GRADUAL_FILE,
    Counts,
    LabelledVideo,
    labelled_videos,
    match,
)
from pipeline.evaluate.shots import OURS_WITHOUT, evaluate_shots
from tests.media_files import scenes, write_video

VIDEO = LabelledVideo(
    name="a", path=Path("a.mp4"), cuts=(10, 20, 55), gradual=((50, 60), (100, 110))
)


def test_two_frames_off_count_and_three_do_not() -> None:
    assert match([8, 22], VIDEO) == Counts(num_found=2, num_wrong=0, num_missed=0)
    assert match([7, 23], VIDEO) == Counts(num_found=0, num_wrong=2, num_missed=2)


def test_gradual_stretches_count_neither_way() -> None:
    assert match([10, 20, 50, 55, 60, 105], VIDEO) == Counts(num_found=2)


def test_a_cut_is_found_once_and_the_nearest_answer_takes_it() -> None:
    close = LabelledVideo(name="a", path=Path("a.mp4"), cuts=(10, 12), gradual=())
    assert match([11, 12], close) == Counts(num_found=2)
    assert match([9, 10, 11], close) == Counts(num_found=2, num_wrong=1)


@given(st.lists(st.integers(0, 120)), st.lists(st.integers(0, 120)))
def test_every_answer_and_every_label_is_counted_once(frames: list[int], cuts: list[int]) -> None:
    video = LabelledVideo(name="a", path=Path("a"), cuts=tuple(sorted(set(cuts))), gradual=())
    counts = match(frames, video)
    assert counts.num_found + counts.num_wrong == len(set(frames))
    assert counts.num_found + counts.num_missed == len(set(cuts))
    assert 0 <= counts.f1 <= 1


def test_unlabelled_videos_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "gt"
    folder.mkdir()
    labels = {"b.mp4": {"cuts": [3]}, "a.mp4": {"cuts": None}, "c.mp4": {"cuts": []}}
    (folder / "shot_cuts.json").write_text(json.dumps(labels))
    (folder / "shot_gradual.json").write_text(json.dumps({"c.mp4": [[1, 2]]}))
    (tmp_path / "b.mp4").touch()
    with pytest.raises(EvaluationError, match=r"c\.mp4: labelled in gt/shot_cuts\.json"):
        labelled_videos(tmp_path)
    (tmp_path / "c.mp4").touch()
    videos = labelled_videos(tmp_path)
    assert [(v.name, v.cuts, v.gradual) for v in videos] == [
        ("b.mp4", (3,), ()),
        ("c.mp4", (), ((1, 2),)),
    ]


def test_every_method_is_judged_on_the_same_rendered_cuts(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", scenes([30, 30, 30], 90, 160))
    (tmp_path / "gt").mkdir()
    (tmp_path / CUTS_FILE).write_text(json.dumps({"a.mp4": {"cuts": [30, 60]}}))
    (tmp_path / GRADUAL_FILE).write_text("{}")
    figures = evaluate_shots(tmp_path)
    f1 = {figure.method: figure for figure in figures if figure.measure == "F1 within 2 frames"}
    assert f1[OURS].value == f1[OURS_WITHOUT].value == 1
    assert len(f1) == 9
    assert {figure.count for figure in f1.values()} == {2}
