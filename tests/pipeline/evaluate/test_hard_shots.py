"""Renderings of hard boundaries from drawn shots: where they say that a shot begins, one does."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluate import hard_shots
from pipeline.evaluate.figures import OURS, EvaluationError
from pipeline.evaluate.hard_shots import (
    CUT_CASES,
    GRADUAL_CASES,
    NO_BOUNDARY_CASES,
    evaluate_hard_shots,
    match_boundaries,
)
from pipeline.evaluate.shot_labels import Counts, LabelledVideo
from pipeline.evaluate.shot_methods import gather_all
from pipeline.evaluate.shot_scenes import CASES, SIZE_HW, list_sources, render
from pipeline.evaluate.shots import TRANSNET
from pipeline.split.config import SplitConfig
from tests.media_files import scenes, texture, write_image, write_video


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos in each half, one of them with a cut, and two photographs."""
    folder = tmp_path_factory.mktemp("media")
    names = ["videos/mdn/a.mp4", "videos/mdn/b.mp4", "videos/own/c.mp4", "videos/own/d.mp4"]
    rows, cuts = [], {}
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        lengths = [70, 66] if number % 2 else [150 + number]
        write_video(folder / name, scenes(lengths, 180, 320, seed=10 * number))
        rows.append(
            {"name": name, "kind": "video", "licence_class": "permissive", "width": 320,
             "height": 180, "fps": 24.0, "frames": sum(lengths), "tags": [], "camera": "static"}
        )  # fmt: skip
        cuts[name] = {"cuts": lengths[:-1]}
    (folder / "photos/kodak").mkdir(parents=True)
    for number in range(2):
        write_image(folder / f"photos/kodak/{number}.png", texture(192, 256, seed=number))
    (folder / "gt").mkdir()
    (folder / "gt/shot_cuts.json").write_text(json.dumps(cuts))
    (folder / "gt/shot_gradual.json").write_text("{}")
    (folder / "media.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_shots_end_at_labelled_cuts_and_no_file_is_in_both_halves(media: Path) -> None:
    halves = list_sources(media)
    tuned, unseen = halves["tuned"], halves["unseen"]
    assert [(s.name, s.start, s.end) for s in tuned.shots] == [
        ("videos/own/c.mp4", 3, 149),
        ("videos/own/d.mp4", 3, 67),
        ("videos/own/d.mp4", 73, 133),
    ]
    assert {s.collection for s in unseen.shots} == {"videos/mdn"}
    assert not set(tuned.photos) & set(unseen.photos)


def test_files_that_may_not_be_published_are_left_out(media: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (media / "media.jsonl").read_text().splitlines()]
    rows[0]["licence_class"] = "nc-research"
    for name in ("gt", "photos", "videos"):
        (tmp_path / name).symlink_to(media / name)
    (tmp_path / "media.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(EvaluationError, match="fewer than two unseen videos"):
        list_sources(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_rendering_changes_where_it_says_and_nowhere_else(media: Path, case: str) -> None:
    sources = list_sources(media)["tuned"]
    rendering = render(case, sources, 1)
    assert rendering.frames.shape[1:] == (*SIZE_HW, 3)
    change = np.abs(np.diff(rendering.frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    usual = float(np.median(change))
    for cut in rendering.cuts:
        assert change[cut - 1] > 1.5 * usual
    for first, last in rendering.gradual:
        before, after = rendering.frames[[first - 1, last + 1]].astype(int)
        assert change[first - 1 : last + 1].max() < 0.5 * np.abs(before - after).mean()
    assert bool(rendering.cuts) == (case in CUT_CASES)
    assert bool(rendering.gradual) == (case in GRADUAL_CASES)


def test_the_same_arguments_give_the_same_frames(media: Path) -> None:
    sources = list_sources(media)["unseen"]
    first, second = (render("flash", sources, 0).frames for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, render("flash", sources, 1).frames)


def test_every_case_is_counted_in_one_group() -> None:
    assert sorted([*CUT_CASES, *GRADUAL_CASES, *NO_BOUNDARY_CASES]) == sorted(CASES)


def test_one_boundary_near_a_gradual_transition_finds_it_and_more_count_neither_way() -> None:
    video = LabelledVideo("a", Path("a"), cuts=(10,), gradual=((40, 60), (90, 95)))
    assert match_boundaries([11, 38, 50, 62], video) == Counts(num_found=2, num_missed=1)
    assert match_boundaries([37, 98], video) == Counts(num_wrong=2, num_missed=3)


def test_ours_and_every_peer_are_judged_on_the_same_renderings(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the network, whose answers take seconds a clip."""
    monkeypatch.setattr(hard_shots, "CASES", {k: CASES[k] for k in ("cut", "fade", "flash")})
    monkeypatch.setattr(hard_shots, "CUT_CASES", ("cut",))
    monkeypatch.setattr(hard_shots, "GRADUAL_CASES", ("fade",))
    monkeypatch.setattr(hard_shots, "NO_BOUNDARY_CASES", ("flash",))
    off = SplitConfig(transnet="off")
    monkeypatch.setattr(hard_shots, "gather_all", lambda videos, config: gather_all(videos, off))
    figures = evaluate_hard_shots(media, num_rendered=1)
    by_name = {(f.measure, f.method): f for f in figures}
    for half in ("tuned", "unseen"):
        assert by_name[f"{half}: cut, F1 within 2 frames", OURS].value == 1
        assert by_name[f"{half}: fade, recall", OURS].value == 1
        assert by_name[f"{half}: flash, left whole", TRANSNET].value == 1  # it found nothing
        assert by_name[f"{half}: all, recall", TRANSNET].value == 0
        assert by_name[f"{half}: all, recall", OURS].count == 2
    assert len({method for _, method in by_name}) == 7
