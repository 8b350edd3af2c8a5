"""The second look and the restoring, with a writer that says what the test wants."""

from collections.abc import Sequence

import pytest

from modeling.rewrite.errors import RewriteError
from modeling.rewrite.prompt import Wording
from modeling.rewrite.rewriter import Ask, RewriteConfig, Rewriter


class _Script:
    """Answers in order, one per question."""

    name = "script"
    wording: Wording = "full"

    def __init__(self, *answers: str) -> None:
        self.answers, self.asks = list(answers), list[Ask]()

    def write(self, asks: Sequence[Ask]) -> list[str]:
        self.asks += asks
        return [self.answers.pop(0) for _ in asks]


_PROMPT = 'two cats left of a sign "OPEN"'
_GOOD = '{"short_description":"Two cats sit to the left of a sign that reads \'OPEN\'."}'
_LOST = '{"short_description":"Some cats near a sign."}'


def test_a_good_answer_is_asked_for_once() -> None:
    script = _Script(_GOOD)
    [rewrite] = Rewriter(script, RewriteConfig()).rewrite([_PROMPT])
    assert {check.kept_by for check in rewrite.checks} == {"answer"}
    assert rewrite.num_answers == 1
    assert rewrite.text == "Two cats sit to the left of a sign that reads 'OPEN'."


def test_what_was_lost_is_named_and_written_again() -> None:
    script = _Script(_LOST, _GOOD)
    [rewrite] = Rewriter(script, RewriteConfig()).rewrite([_PROMPT])
    assert {check.kept_by for check in rewrite.checks} == {"revision"}
    complaint = script.asks[1].messages[-1]["content"]
    assert "two cats" in complaint
    assert "OPEN" in complaint
    assert script.asks[1].messages[-2]["content"] == _LOST


def test_a_worse_second_look_is_not_taken() -> None:
    half = '{"short_description":"Two cats and a sign."}'
    [rewrite] = Rewriter(_Script(half, _LOST), RewriteConfig(restore=False)).rewrite([_PROMPT])
    assert rewrite.caption.short_description == "Two cats and a sign."
    assert {check.kind: check.kept_by for check in rewrite.checks} == {
        "number": "answer",
        "quoted": "lost",
        "relation": "lost",
    }


def test_what_is_lost_in_the_end_comes_back_in_the_users_words() -> None:
    [rewrite] = Rewriter(_Script(_LOST, _LOST), RewriteConfig()).rewrite([_PROMPT])
    assert {check.kept_by for check in rewrite.checks} == {"restored"}
    assert rewrite.caption.short_description == "Two cats left of a sign 'OPEN'."


def test_an_invalid_answer_is_asked_for_again_with_another_seed() -> None:
    script = _Script("Sure! Here you go.", '{"style":"noir"}', f"```json\n{_GOOD}\n```")
    [rewrite] = Rewriter(script, RewriteConfig()).rewrite([_PROMPT])
    assert rewrite.num_answers == 3
    assert [ask.seed for ask in script.asks] == [0, 1, 2]
    with pytest.raises(RewriteError, match=r"no valid answer to 'two cats.* in 3 tries"):
        Rewriter(_Script("no", "no", "no"), RewriteConfig()).rewrite([_PROMPT])


def test_master_mode_wants_every_field() -> None:
    with pytest.raises(RewriteError, match="no valid answer"):
        Rewriter(_Script(*[_GOOD] * 3), RewriteConfig(mode="master")).rewrite([_PROMPT])


@pytest.mark.parametrize("prompt", ["", " \n\t", "\u200b\x00"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(RewriteError, match="the prompt is empty"):
        Rewriter(_Script(), RewriteConfig()).rewrite([prompt])


def test_a_prompt_of_100_kb_is_refused_before_anything_is_asked() -> None:
    script = _Script()
    with pytest.raises(RewriteError, match="has 102400 characters, at most 2000"):
        Rewriter(script, RewriteConfig()).rewrite(["x" * 102_400])
    assert script.asks == []
