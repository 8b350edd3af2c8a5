"""The edits and the peer of the duplicate evaluation, and its sums on labelled media."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus.config import DuplicateConfig
from pipeline.embed.config import EmbedConfig
from pipeline.evaluate.duplicate_looks import perceptual_hash
from pipeline.evaluate.duplicates import evaluate_duplicates
from pipeline.evaluate.figures import OURS
from pipeline.evaluate.perturbations import PERTURBATIONS, crop, letterbox, reencode, tone
from tests.media_files import moving_frames, texture, write_video

FRAMES_THWC = moving_frames(4, 96, 128)


def test_every_edit_changes_the_picture_and_keeps_the_number_of_frames() -> None:
    for name, perturbation in PERTURBATIONS.items():
        edited = perturbation.edit(FRAMES_THWC)
        assert len(edited) == len(FRAMES_THWC), name
        assert edited.dtype == np.uint8, name
        changed = edited.shape != FRAMES_THWC.shape or (edited != FRAMES_THWC).any()
        assert changed == (perturbation.span == (0.0, 1.0)), name


def test_letterbox_adds_its_share_and_crop_keeps_its_share() -> None:
    boxed = letterbox(FRAMES_THWC, 0.25)
    assert boxed.shape[1:3] == (128, 128)
    assert (boxed[:, :16] == 0).all()
    np.testing.assert_array_equal(boxed[:, 16:112], FRAMES_THWC)
    assert crop(FRAMES_THWC, 0.75).shape[1:3] == (72, 96)


def test_a_stronger_encoding_is_further_from_the_original() -> None:
    errors = [
        np.abs(reencode(FRAMES_THWC, crf=crf, short_side=96).astype(int) - FRAMES_THWC).mean()
        for crf in (10, 30, 50)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_the_hash_knows_a_brighter_copy_and_not_another_picture() -> None:
    first, other = FRAMES_THWC[0], moving_frames(1, 96, 128, seed=9)[0]
    brighter = tone(FRAMES_THWC[:1], gain=1.1)[0]
    assert (perceptual_hash(first) != perceptual_hash(brighter)).sum() <= 6
    assert (perceptual_hash(first) != perceptual_hash(other)).sum() > 16


def test_mild_edits_are_found_and_unrelated_clips_are_not(labelled_media: Path) -> None:
    model = EmbedConfig(num_frames=2)
    figures = evaluate_duplicates(labelled_media, DuplicateConfig(), model, max_sources=6)
    ours = {figure.measure: figure for figure in figures if figure.method == OURS}
    mild = ours["recall of mild edits"]
    assert mild.value > 0.8
    assert mild.low <= mild.value <= mild.high
    assert ours["unrelated sources: called duplicates"].value < 0.05


def test_precision_counts_the_other_moment_of_the_same_source(tmp_path: Path) -> None:
    """A still scene: each copy found matches the other moment, too. A moving one: it does not."""
    measure = "precision of mild edits beside the source's other moment"
    for name, is_still in (("still", True), ("moving", False)):
        media = tmp_path / name
        still = np.repeat(texture(120, 160, seed=1)[None], 10, axis=0)
        moving = [moving_frames(10, 120, 160, seed=seed) for seed in (1, 2)]
        shots = [still, still] if is_still else moving
        (media / "gt").mkdir(parents=True)
        write_video(media / "a.mp4", np.concatenate(shots), 8)
        row = {"name": "a.mp4", "kind": "video", "error": None, "fps": 8, "frames": 20}
        (media / "media.jsonl").write_text(json.dumps(row | {"width": 160, "height": 120}))
        (media / "gt/shot_cuts.json").write_text(json.dumps({"a.mp4": {"cuts": [10]}}))
        (media / "gt/duplicate_groups.json").write_text("[]")
        figures = evaluate_duplicates(media, model=EmbedConfig(num_frames=4))
        ours = {figure.measure: figure for figure in figures if figure.method == OURS}
        num_found = round(ours["recall of mild edits"].value * 9)
        assert num_found >= 5, name
        assert ours[measure].value == (0.5 if is_still else 1.0), name
        assert ours[measure].count == num_found * (2 if is_still else 1), name


@pytest.mark.parametrize("name", ["flip", "gray"])
def test_edits_of_known_effect(name: str) -> None:
    edited = PERTURBATIONS[name].edit(FRAMES_THWC)
    if name == "flip":
        np.testing.assert_array_equal(edited[:, :, 0], FRAMES_THWC[:, :, -1])
    else:
        assert (edited[..., 0] == edited[..., 2]).all()
