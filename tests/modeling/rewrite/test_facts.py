import pytest

from modeling.rewrite.answer import CHOICES
from modeling.rewrite.facts import find_facts, is_english, is_kept, unchecked_kinds
from modeling.rewrite.terms import said_camera, said_shot_type, simplify
from pipeline.caption.config import AnswerLimits
from schemas.caption import StructuredCaption


def _found(prompt: str) -> set[tuple[str, str]]:
    return {(fact.kind, fact.text) for fact in find_facts(prompt)}


def _kept(prompt: str, rewrite: str) -> dict[str, bool]:
    caption = StructuredCaption(captioner="test", dense_description=rewrite)
    return {fact.kind: is_kept(fact, caption) for fact in find_facts(prompt)}


def test_what_a_prompt_asks_for_is_found() -> None:
    prompt = 'Two cats and 3.5 m of rope, behind Anna Karenina a sign "NO exit", CU, dolly in'
    assert _found(prompt) >= {
        ("number", "Two cats"),
        ("number", "3.5 m"),
        ("name", "Anna Karenina"),
        ("quoted", "NO exit"),
        ("term", "close-up shot"),
        ("term", "zoom_in"),
    }


@pytest.mark.parametrize(
    ("rewrite", "number", "relation"),
    [
        ("Two cats sit to the left of a dog.", True, True),
        ("2 cats, and to their right a dog.", True, False),
        ("A dog stands on the right of two cats.", True, True),
        ("A dog to the left of two cats.", True, False),
        ("Three cats to the left of a dog.", False, True),
        ("A cat to the left of two dogs.", False, True),
    ],
)
def test_swapped_and_changed_facts_are_noticed(rewrite: str, number: bool, relation: bool) -> None:
    found = _kept("two cats left of a dog", rewrite)
    assert found == {"number": number, "relation": relation}


def test_quoted_text_is_kept_to_the_letter() -> None:
    prompt = "a sign that says \u201cPier 9\u201d"
    assert _kept(prompt, "A sign reads 'Pier 9'.") == {"quoted": True}
    assert _kept(prompt, "A sign reads 'pier 9'.") == {"quoted": False}


@pytest.mark.parametrize(
    ("prompt", "numbers"),
    [
        ("zwei Hunde laufen mit Peter am Strand", {"2"}),
        ("deux chats noirs dans la rue", {"2"}),
        ("\u4e24\u53ea\u732b\u5728\u8349\u5730\u4e0a", {"2"}),
        ("\u0663 \u0642\u0637\u0637", {"3"}),
    ],
)
def test_numbers_are_read_in_other_languages_and_the_rest_is_said(
    prompt: str, numbers: set[str]
) -> None:
    assert not is_english(prompt)
    assert {fact.value[0] for fact in find_facts(prompt) if fact.kind == "number"} == numbers
    assert unchecked_kinds(prompt) == ("name", "relation")


def test_capitals_that_mean_nothing_are_no_names() -> None:
    assert _found("Make a video. The man walks. I see him, CU") == {("term", "close-up shot")}
    assert _found("A MAN WALKS HOME") == set()
    assert unchecked_kinds("A MAN WALKS HOME") == ("name",)


def test_terms_are_simplified_outside_of_quoted_text() -> None:
    assert simplify("Golden hour, 'golden hour'.") == "warm low sunlight, 'golden hour'."


def test_the_longer_term_counts_and_two_terms_cancel() -> None:
    assert said_shot_type("an extreme close-up of an eye") == "extreme close-up shot"
    assert said_shot_type("a close-up, then a wide shot") is None
    assert said_shot_type("cu of a cup") is None  # abbreviations in capitals only
    assert said_camera("slowly zooming in on a cup") == "zoom_in"
    assert said_camera("zoom in, then zoom out") is None


@pytest.mark.parametrize(
    ("prompt", "movement"),
    [
        ("a fox, slow pan to the left", "pan_left"),
        ("the camera pans slowly towards the right over a bay", "pan_right"),
        ("Panning upwards along a tower", "pan_up"),
        ("the camera dollies in on a cup", "zoom_in"),
        ("orbiting to the left around a statue", "around_left"),
        ("a frying pan to the left of a cup", None),
        ("she pans for gold, then left the river", None),
        ("pans left, then tilts up", None),
    ],
)
def test_movements_are_found_in_the_ways_people_say_them(prompt: str, movement: str | None) -> None:
    assert said_camera(prompt) == movement


def test_a_rewrite_chooses_from_the_words_of_captions() -> None:
    limits = AnswerLimits()
    wanted = (limits.styles, limits.shot_types, limits.atmospheres)
    assert (CHOICES["style"], CHOICES["shot_type"], CHOICES["atmosphere"]) == wanted
