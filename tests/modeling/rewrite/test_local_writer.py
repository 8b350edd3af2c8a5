"""A random model writes nonsense; the grammar makes it nonsense of the right form."""

import json

import pytest

from modeling.rewrite.answer import MAX_CHARS, Mode, answer_schema, read_answer
from modeling.rewrite.errors import AnswerError
from modeling.rewrite.local_writer import LocalWriter
from modeling.rewrite.prompt import messages
from modeling.rewrite.rewriter import Ask, RewriteConfig, Rewriter
from schemas.caption import VLM_FIELDS, StructuredCaption
from tests.modeling.rewrite.tiny import tiny_language


@pytest.fixture(autouse=True)
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model fills every text to its end."""
    for name in MAX_CHARS:
        monkeypatch.setitem(MAX_CHARS, name, 20)


def _ask(prompt: str, mode: Mode, seed: int = 0) -> Ask:
    return Ask(messages(prompt, mode, "short"), mode, prompt, seed, temperature=1.0)


@pytest.mark.parametrize("mode", ["normal", "master"])
def test_a_random_model_answers_with_a_valid_caption(mode: Mode) -> None:
    writer = LocalWriter(tiny_language(), wording="short", batch_size=4)
    asks = [_ask("a red fox", mode, seed) for seed in range(1)]
    asks.append(_ask('Zo\u00eb und ein Schild "\u5165\u53e3"', mode, 7))
    for ask, text in zip(asks, writer.write(asks), strict=True):
        caption = read_answer(text, ask.mode, "test")
        assert StructuredCaption.model_validate_json(caption.model_dump_json()) == caption
        if mode == "master":
            assert all(getattr(caption, name) is not None for name in VLM_FIELDS)


def test_without_the_grammar_it_does_not() -> None:
    writer = LocalWriter(tiny_language(), wording="short", constrained=False)
    short = _ask("a fox", "normal")
    with pytest.raises(AnswerError):
        read_answer(writer.write([short])[0], "normal", "test")


def test_an_answer_does_not_hang_on_its_batch() -> None:
    asks = [_ask("a fox", "normal", 1), _ask("three kites over a long beach", "normal", 2)]
    together = LocalWriter(tiny_language(), wording="short", batch_size=2).write(asks)
    alone = LocalWriter(tiny_language(), wording="short", batch_size=1).write(asks)
    assert together == alone


def test_letters_beyond_ascii_come_from_the_prompt_alone() -> None:
    def pattern(prompt: str) -> str:
        return str(answer_schema("normal", prompt)["properties"]["lighting"]["pattern"])

    assert "\u00eb" in pattern("Zo\u00eb")
    assert pattern("Zoe").isascii()


def test_what_the_user_asked_for_survives_a_random_model() -> None:
    writer = LocalWriter(tiny_language(), wording="short")
    prompt = 'three foxes to the left of Tom, a sign says "EXIT 7", drone shot, dolly in'
    [rewrite] = Rewriter(writer, RewriteConfig(num_revisions=0)).rewrite([prompt])
    assert {check.kept_by for check in rewrite.checks} == {"restored"}
    assert {check.kind for check in rewrite.checks} == {
        "number",
        "quoted",
        "name",
        "relation",
        "term",
    }
    assert rewrite.caption.shot_type == "aerial shot"
    assert rewrite.caption.camera_movement == "zoom_in"
    assert "'EXIT 7'" in rewrite.text
    json.loads(rewrite.model_dump_json())
