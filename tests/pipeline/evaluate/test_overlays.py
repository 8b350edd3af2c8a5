import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.evaluate.figures import OURS
from pipeline.evaluate.motion import encoded_clip
from pipeline.evaluate.overlays import (
    LABEL_FILE,
    PEER,
    Found,
    Judged,
    Wanted,
    average_precision,
    by_source,
    evaluate_overlays,
    judge,
    key_frames,
    wanted_of_clip,
)
from schemas.scores import Box


def box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(left=left, top=top, right=right, bottom=bottom)


def row(kind: str, sides: tuple[float, ...], *, ignore: bool = False) -> dict[str, Any]:
    return {"kind": kind, "box": list(sides), "ignore": ignore}


LOGO, MARK = box(0.8, 0, 0.9, 0.1), box(0.4, 0.4, 0.6, 0.6)


def test_each_true_box_is_found_once_and_ignored_ones_count_neither_way() -> None:
    wanted = [Wanted("logo", LOGO), Wanted("logo", MARK, True)]
    found = [
        Found("logo", LOGO, 0.6), Found("logo", LOGO, 0.9), Found("logo", MARK, 0.8),
        Found("mark", LOGO, 0.7), Found(None, box(0, 0, 0.1, 0.1), 0.5),
    ]  # fmt: skip
    assert judge("a", "logo", found, wanted) == Judged(
        "a", ((0.9, True), (0.6, False), (0.5, False)), 1
    )


def test_average_precision_of_a_list_worked_out_by_hand() -> None:
    judged = [
        Judged("a", ((0.9, True), (0.3, True)), 2), Judged("b", ((0.5, False),), 2),
    ]  # fmt: skip
    assert average_precision(judged) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert np.isnan(average_precision([Judged("a", (), 0)]))


def test_intervals_come_from_whole_sources() -> None:
    good = Judged("good", ((0.9, True),), 1)
    bad = Judged("bad", (), 1)
    for group, least in (([good] * 5, 1.0), ([good, bad] * 5, 0.0)):
        low, high = by_source([group], lambda groups: average_precision(groups[0]))
        assert low == least
        assert high == 1


def test_the_frames_are_those_that_the_sampler_takes(tmp_path: Path) -> None:
    frames = [np.full((64, 96, 3), 10 * number, np.uint8) for number in range(24)]
    clip = encoded_clip(tmp_path / "a.mp4", frames, 12.0)
    levels = clip.key_frames_THWC.mean(axis=(1, 2, 3)) / 10
    taken = np.round(levels).astype(int)
    assert np.abs(taken - key_frames(24, len(levels))).max() <= 1  # the middles are ties


def test_a_clip_shows_what_rests_and_all_lines_of_a_subtitle_as_one() -> None:
    rest = row("corner_logo", (0.8, 0, 0.9, 0.1))
    faint = row("watermark", (0.4, 0.4, 0.6, 0.6), ignore=True)
    first, second = row("subtitle", (0.3, 0.8, 0.7, 0.9)), row("subtitle", (0.2, 0.8, 0.6, 0.9))
    wanted = wanted_of_clip([[rest, faint, first], [rest], [rest, second], [rest]], 4)
    assert wanted == [
        Wanted("corner_logo", LOGO),
        Wanted("watermark", MARK, True),
        Wanted("subtitle", box(0.2, 0.8, 0.7, 0.9)),
    ]


def test_bars_are_found_by_the_network_and_not_by_the_peer(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    coarse = np.random.default_rng(0).integers(60, 200, (4, 7, 3)).astype(np.uint8)
    smooth = np.asarray(cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC), np.uint8)
    plain = [smooth] * 4
    barred = [image.copy() for image in plain]
    for image in barred:
        image[:50] = image[-50:] = 0
    labels = {}
    for name, frames in (("plain.mp4", plain), ("barred.mp4", barred)):
        encoded_clip(tmp_path / name, frames, 12.0)
        bars = [row("border", (0, 0, 1, 5 / 36)), row("border", (0, 31 / 36, 1, 1))]
        is_plain = frames is plain
        labels[name] = {
            "kind": None if is_plain else "border", "set": "photograph", "source": name,
            "frames": [[] if is_plain else bars] * len(frames),
        }  # fmt: skip
    (tmp_path / LABEL_FILE).write_text(json.dumps(labels))
    figures = {(f.measure, f.method): f for f in evaluate_overlays(tmp_path)}
    assert figures["found: border", OURS].value == 1
    assert figures["found: border", PEER].value == 0
    assert figures["AP50 border", f"{OURS}, single frames"].value == 1
    assert figures["crop: area left of border", OURS].value < 0.02
    assert figures["alarm on plain clip", OURS].count == 1
