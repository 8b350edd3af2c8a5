"""Each way in which field captions go wrong is seen, and good prose is let pass."""

import json

import pytest

from pipeline.caption.answer import AnswerDefect, Words, answer_schema, longest_answer, read_answer
from pipeline.caption.config import AnswerLimits, VlmConfig
from pipeline.caption.defects import check_words
from pipeline.caption.judge import judge
from pipeline.caption.merge import merge_words
from pipeline.caption.prompt import instructions

CONFIG = VlmConfig()
TAG = "0123456789abcdef"
GOOD = {
    "short_description": "A woman in a red coat crosses a busy street in the rain.",
    "dense_description": (
        "A woman in a red coat steps off the curb and crosses a busy street in the rain. Cars wait "
        "at the light, their headlamps shining on the wet asphalt. Halfway across she opens a "
        "black umbrella, looks to her left and walks faster. A cyclist passes behind her, and the "
        "light turns green as she reaches the other side, where two men stand under an awning."
    ),
    "background": "Shop fronts with lit windows and a row of parked cars.",
    "style": "cinematic",
    "shot_type": "medium shot",
    "lighting": "Gray daylight from above with warm light from the shop windows.",
    "atmosphere": "melancholic",
}


def answer(**changes: object) -> str:
    return json.dumps({"request": TAG, **GOOD, **changes})


def defect_of(text: str, config: VlmConfig = CONFIG, *, was_cut: bool = False) -> str:
    with pytest.raises(AnswerDefect) as found:
        judge(text, config, TAG, was_cut=was_cut)
    assert "\n" not in str(found.value)
    return found.value.kind


@pytest.mark.parametrize(
    "text",
    [
        answer(),
        f"Here it is:\n```json\n{answer()}\n```",
        answer(short_description="Two dogs, two cats and two birds sit on a fence."),
        answer(background="No, no, no: a sign says stop in large letters."),
        answer(lighting="The sun is low and the light of the sun is red."),
    ],
)
def test_good_answers_are_taken(text: str) -> None:
    assert judge(text, CONFIG, TAG, was_cut=False).style == "cinematic"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "caption_empty"),
        ("I would rather not.", "caption_no_json"),
        (answer()[:-20], "caption_no_json"),
        ("{" * 100_000, "caption_no_json"),
        (json.dumps(GOOD), "caption_unmatched"),
        (answer(request="fedcba9876543210"), "caption_wrong_clip"),
        (answer(mood="happy"), "caption_schema"),
        (answer(style="baroque"), "caption_schema"),
        (answer(lighting=None), "caption_schema"),
        (answer(background=["a", "b"]), "caption_schema"),
        (answer(short_description="x " * 200), "caption_schema"),
        (answer(background=""), "caption_empty"),
        (answer(background="........."), "caption_empty"),
        (answer(background="not applicable"), "caption_empty"),
        (answer(short_description="I'm sorry, but I can't help with that."), "caption_refusal"),
        (answer(dense_description="As an AI, I see a street and a car in it."), "caption_refusal"),
        (answer(background="No image was provided with the request."), "caption_refusal"),
        (answer(dense_description="A man walks. " + "and walks " * 30), "caption_repetition"),
        (answer(dense_description="The car turns left. " * 4), "caption_repetition"),
        (answer(lighting="very very very very bright light"), "caption_repetition"),
        (answer(lighting="Bright light!!!!!!!!!!!!!!!!!!"), "caption_repetition"),
        (
            answer(
                dense_description="The man looks at the dog. He waits. The man looks at the dog. "
                "He sits. The man looks at the dog. He stands up."
            ),
            "caption_repetition",
        ),
        (answer(short_description="Une femme traverse la rue sous la pluie avec un parapluie noir",
                dense_description="Une femme en manteau gris traverse une rue pleine de voitures.",
                background="Des vitrines et des voitures stationnent le long du trottoir.",
                lighting="Une lumiere grise tombe du ciel couvert."), "caption_language"),
        (answer(dense_description="\u4e00\u4e2a\u5973\u4eba" * 15), "caption_repetition"),
        (answer(dense_description="<|im_start|>A woman walks."), "caption_prompt_leak"),
        (answer(dense_description="assistant: A woman crosses the street."), "caption_prompt_leak"),
        (
            answer(dense_description="Say only what can be seen. Do not guess names, places."),
            "caption_prompt_leak",
        ),
    ],
)  # fmt: skip
def test_each_defect_is_named(text: str, kind: str) -> None:
    assert defect_of(text) == kind


def test_an_answer_that_breaks_off_or_fills_its_room_is_truncated() -> None:
    assert defect_of(answer(), was_cut=True) == "caption_truncated"
    limits = AnswerLimits(short_chars=40)
    cut = answer(short_description=GOOD["short_description"][:40])
    assert defect_of(cut, VlmConfig(answer=limits)) == "caption_truncated"


def test_the_language_is_checked_only_where_one_is_asked_for() -> None:
    chinese = answer(
        short_description="\u4e00\u4f4d\u7a7f\u7ea2\u8272\u5916\u5957\u7684\u5973\u4eba\u8fc7\u9a6c\u8def\u3002",
        dense_description="\u4e00\u4f4d\u7a7f\u7ea2\u8272\u5916\u5957\u7684\u5973\u4eba\u5728\u96e8\u4e2d\u8d70\u8fc7\u7e41\u5fd9\u7684\u8857\u9053\u3002",
        background="\u5546\u5e97\u6a71\u7a97\u4eae\u7740\u706f\u7684\u8857\u9053\u3002",
        lighting="\u9634\u5929\u7684\u7070\u8272\u65e5\u5149\u3002",
    )
    assert defect_of(chinese) == "caption_language"
    assert defect_of(answer(), VlmConfig(language="zh")) == "caption_language"
    for language in ("zh", "any"):
        assert judge(chinese, VlmConfig(language=language), TAG, was_cut=False)


def test_a_prompt_of_the_users_own_is_watched_for_leaks_too() -> None:
    own = "Write about boats as a sailor of many years would write about them to a friend."
    config = VlmConfig(instructions=own)
    assert instructions(config).startswith(own)
    assert defect_of(answer(background=own), config) == "caption_prompt_leak"
    assert judge(answer(background=own), CONFIG, TAG, was_cut=False)


def test_the_longest_answer_of_the_schema_is_taken_and_has_its_tokens() -> None:
    schema = answer_schema(CONFIG, TAG, detail="patterns")
    longest = {
        name: rule["enum"] and max(rule["enum"], key=len)
        if "enum" in rule
        else ("Ab. " * 1000)[: rule["maxLength"] - 1] + "."
        for name, rule in schema["properties"].items()
    }
    text = json.dumps(longest)
    assert read_answer(text, CONFIG, TAG)
    assert len(text.encode()) <= longest_answer(CONFIG)


def test_windows_merge_in_the_order_of_time_without_a_new_word() -> None:
    first = Words.model_validate(GOOD)
    second = first.model_copy(
        update={
            "dense_description": "Cars wait at the light, their headlamps shining on the wet "
            "asphalt. She enters a shop.",
            "style": "realistic",
        }
    )
    third = second.model_copy(update={"dense_description": "A door closes behind her."})
    merged = merge_words([first, second, third], AnswerLimits())
    assert merged.dense_description == (
        f"{first.dense_description} She enters a shop. A door closes behind her."
    )
    assert (merged.style, merged.background) == ("realistic", first.background)
    check_words(merged, CONFIG)
    tight = merge_words([first, second, third], AnswerLimits(dense_chars=200))
    assert len(tight.dense_description) <= 200
    assert tight.dense_description.endswith("A door closes behind her.")
