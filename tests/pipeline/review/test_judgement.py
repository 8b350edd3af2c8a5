from typing import Any

import pytest

from pipeline.review.judgement import CaptionFix, JudgementError, parse_fix
from pipeline.review.sense import nonsense
from schemas.caption import StructuredCaption
from tests.pipeline.review.makers import hex_id, judgement


@pytest.mark.parametrize(
    "text",
    [
        "A rabbit sits in a meadow.",
        "The dog runs and runs, then it stops.",
        "A neon sign reads 'NOOOO!' above a 24-hour diner.",
        "Un zorro rojo, naïve et déçu.",
        "一只兔子坐在草地上",
        "Close-up.",
        "Line one.\nLine two.",
    ],
)
def test_plain_words_are_taken(text: str) -> None:
    assert nonsense(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("   ", "blank"),
        ("12 34 !!", "no word"),
        ("aaaaaaaaaaaa", "repeats 'a' 12 times"),
        ("x" * 3 + "qwertyuiop" * 5, "a word of 53 letters"),
        ("the the the the the the the the cat", "says 'the' 8 times in 9 words"),
        ('{"short_description": "a cat"}', "markup or JSON"),
        ("A cat <script>alert(1)</script>", "markup or JSON"),
        ("A cat\x00 sits", "control"),
        ("A cat\u202e sits", "control or invisible"),
    ],
)
def test_nonsense_is_named(text: str, why: str) -> None:
    assert why in (nonsense(text) or "")


@pytest.mark.parametrize(
    ("fix", "line"),
    [
        ({"style": ""}, "style: is empty"),
        ({"style": "zzzzzzzzz"}, "style: repeats 'z'"),
        ({"style": "long " * 1000}, "style: String should have at most 4000"),
        ({"camera_movement": "sideways"}, "camera_movement: Input should be"),
        ({"captioner": "me"}, "captioner: no such field"),
        ({"background": 7}, "background: Input should be a valid string"),
    ],
)
def test_a_fix_is_refused_in_one_line(fix: dict[str, Any], line: str) -> None:
    with pytest.raises(JudgementError) as caught:
        parse_fix(fix)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"reviewer": " Ada"},
        {"reviewer": "Ada\nEve"},
        {"clip_id": "../../etc/passwd"},
        {"subsets": ("Not A Slug",)},
        {"verdict": "maybe"},
        {"verdict": "withdraw"},
        {"withdraws": hex_id(3)},
        {"criteria": {"color_harmony": "fine"}},
        {"seconds": float("nan")},
        {"note": "x" * 1001},
    ],
)
def test_a_wrong_judgement_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(JudgementError):
        judgement(**wrong)


def test_a_fix_changes_its_fields_and_says_that_a_person_did() -> None:
    caption = StructuredCaption(
        captioner="measured", style="photo", camera_movement="zoom_in", quality_tags=("dark",)
    )
    fixed = CaptionFix(style="drawn by hand", camera_movement="pan_left").apply(caption)
    assert fixed == caption.model_copy(
        update={
            "captioner": "measured+human",
            "style": "drawn by hand",
            "camera_movement": "pan_left",
        }
    )
    assert CaptionFix().apply(caption) is caption
