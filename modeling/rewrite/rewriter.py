"""Prompt in, structured prompt out: ask, compare with the prompt, revise, restore.

A writer (endpoint or local model) answers; rules compare. What an answer lost is named to the
writer, which writes again; the better of the two stays. What is lost even then is put back in the
user's own words, so that nothing asked for is ever missing from the text that the DiT reads.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from modeling.rewrite.answer import (
    MAX_CHARS,
    Mode,
    answer_schema,
    answer_text,
    longest_answer_tokens,
    read_answer,
)
from modeling.rewrite.errors import AnswerError, RewriteError
from modeling.rewrite.facts import Fact, FactKind, find_facts, is_kept, unchecked_kinds
from modeling.rewrite.prompt import Message, Wording, messages, revision_messages
from modeling.rewrite.terms import simplify
from schemas.base import StrictModel
from schemas.caption import StructuredCaption

_RETRY_TEMPERATURE = 0.7
_LEAD = re.compile(
    r"^(?:please |can you |could you |i want(?: to see)? |make(?: me)? |show(?: me)? |generate:? "
    r"|create |an? (?:video|clip|picture|image) of |video:? (?:of )?)+",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to a writer."""

    messages: list[Message]
    mode: Mode
    prompt: str
    seed: int
    temperature: float

    def schema(self, *, with_patterns: bool) -> dict[str, Any]:
        return answer_schema(self.mode, self.prompt, with_patterns=with_patterns)

    @property
    def max_tokens(self) -> int:
        return longest_answer_tokens(self.prompt)


class Writer(Protocol):
    """Answers questions; held to the schema as far as it can."""

    name: str
    wording: Wording

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """One answer for each, in order. Raises RewriteError when there are none to be had."""
        ...


class RewriteConfig(StrictModel):
    mode: Mode = "normal"
    num_tries: Annotated[int, Field(ge=1, le=10)] = 3  # of an answer that is not the JSON
    num_revisions: Annotated[int, Field(ge=0, le=5)] = 1
    restore: bool = True
    seed: Annotated[int, Field(ge=0)] = 0
    max_prompt_chars: Annotated[int, Field(ge=1, le=3000)] = 2000

    def checked(self, prompt: str) -> str:
        """The prompt in one line. Raises RewriteError: empty, or too long."""
        limit = self.max_prompt_chars
        if len(prompt) > limit:
            raise RewriteError(f"the prompt has {len(prompt)} characters, at most {limit} are read")
        shown = "".join(char if char.isprintable() else " " for char in prompt)
        shown = " ".join(shown.split())
        if not shown:
            raise RewriteError("the prompt is empty")
        return shown


class FactCheck(StrictModel):
    """`kept_by`: the answer itself, the second look, our restoring, or nothing."""

    kind: FactKind
    text: str
    kept_by: Literal["answer", "revision", "restored", "lost"]


class Rewrite(StrictModel):
    """`text` is what to sample with; `answer` is the first answer, before anything was mended."""

    prompt: str
    mode: Mode
    caption: StructuredCaption
    text: str
    checks: tuple[FactCheck, ...]
    unchecked: tuple[FactKind, ...]
    answer: StructuredCaption
    num_answers: int


@dataclass(slots=True)
class _Draft:
    prompt: str
    facts: tuple[Fact, ...]
    first: StructuredCaption | None = None
    current: StructuredCaption | None = None
    num_answers: int = 0

    def lost(self) -> list[Fact]:
        assert self.current is not None
        return [fact for fact in self.facts if not is_kept(fact, self.current)]


class Rewriter:
    """Rewrites prompts with one writer."""

    def __init__(self, writer: Writer, config: RewriteConfig) -> None:
        self._writer, self._config = writer, config

    def rewrite(self, prompts: Sequence[str]) -> list[Rewrite]:
        """One rewrite for each prompt.

        Raises:
            RewriteError: an empty or overlong prompt, a writer that cannot be asked, or one that
                gives no valid answer in `num_tries`.

        """
        drafts = [_Draft(text, find_facts(text)) for text in map(self._config.checked, prompts)]
        mode, wording = self._config.mode, self._writer.wording
        for draft, answer in zip(
            drafts,
            self._answers(drafts, [messages(d.prompt, mode, wording) for d in drafts]),
            strict=True,
        ):
            if answer is None:
                raise RewriteError(
                    f"{self._writer.name} gave no valid answer to {draft.prompt[:60]!r} in "
                    f"{self._config.num_tries} tries"
                )
            draft.first = draft.current = answer
        for _ in range(self._config.num_revisions):
            self._revise([draft for draft in drafts if draft.lost()])
        return [self._finished(draft) for draft in drafts]

    def _revise(self, drafts: list[_Draft]) -> None:
        """A second look; the new answer stays only if it lost less."""
        questions = []
        for draft in drafts:
            assert draft.current is not None
            lost = [f"{fact.kind} {fact.text!r}" for fact in draft.lost()]
            answer = answer_text(draft.current)
            questions.append(
                revision_messages(
                    draft.prompt, self._config.mode, self._writer.wording, answer, lost
                )
            )
        for draft, answer_again in zip(drafts, self._answers(drafts, questions), strict=True):
            if answer_again is None:
                continue
            num_lost, before = len(draft.lost()), draft.current
            draft.current = answer_again
            if len(draft.lost()) >= num_lost:
                draft.current = before

    def _answers(
        self, drafts: Sequence[_Draft], questions: Sequence[list[Message]]
    ) -> list[StructuredCaption | None]:
        """Ask until the answer is valid; None after `num_tries`."""
        answers: list[StructuredCaption | None] = [None] * len(drafts)
        for attempt in range(self._config.num_tries):
            open_places = [place for place, answer in enumerate(answers) if answer is None]
            if not open_places:
                break
            asks = [
                Ask(
                    questions[place],
                    self._config.mode,
                    drafts[place].prompt,
                    self._config.seed + attempt,
                    _RETRY_TEMPERATURE if attempt else 0.0,
                )
                for place in open_places
            ]
            for place, text in zip(open_places, self._writer.write(asks), strict=True):
                drafts[place].num_answers += 1
                try:
                    answer = read_answer(text, self._config.mode, f"rewrite {self._writer.name}")
                except AnswerError:
                    continue
                answers[place] = _simplified(answer)
        return answers

    def _finished(self, draft: _Draft) -> Rewrite:
        assert draft.first is not None
        assert draft.current is not None
        lost = draft.lost()
        caption = restored(draft.current, draft.prompt, lost) if self._config.restore else None
        final = caption or draft.current
        checks = []
        for fact in draft.facts:
            kept_by: Literal["answer", "revision", "restored", "lost"] = "lost"
            if fact not in lost:
                kept_by = "answer" if is_kept(fact, draft.first) else "revision"
            elif is_kept(fact, final):
                kept_by = "restored"
            checks.append(FactCheck(kind=fact.kind, text=fact.text, kept_by=kept_by))
        return Rewrite(
            prompt=draft.prompt,
            mode=self._config.mode,
            caption=final,
            text=final.to_prompt(),
            checks=tuple(checks),
            unchecked=unchecked_kinds(draft.prompt),
            answer=draft.first,
            num_answers=draft.num_answers,
        )


def restored(caption: StructuredCaption, prompt: str, lost: Sequence[Fact]) -> StructuredCaption:
    """Put back what was lost, in the user's own words.

    A lost number or relation means that the descriptions say something else: the user's words take
    their place. Other words are added to the dense description; a term is set in its field.
    """
    update: dict[str, Any] = {f.value[0]: f.value[1] for f in lost if f.kind == "term"}
    words = [fact for fact in lost if fact.kind != "term"]
    own = own_words(prompt)
    if any(fact.kind in ("number", "relation") for fact in words):
        if len(own) <= MAX_CHARS["short_description"]:
            update |= {"short_description": own, "dense_description": None}
        else:
            update |= {"short_description": _first_sentence(own), "dense_description": own}
    elif words:
        dense = caption.dense_description
        update["dense_description"] = own if dense is None else f"{dense} {own}"
    return caption.model_copy(update=update)


def own_words(prompt: str) -> str:
    """The prompt as a sentence of a caption: without its lead, in plain terms, single quotes."""
    text = re.sub(r'["\u201c\u201d\u201e]', "'", prompt)
    text = simplify(_LEAD.sub("", text)).strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    return first if len(first) <= 300 else f"{first[:300].rsplit(' ', 1)[0]}."


def _simplified(caption: StructuredCaption) -> StructuredCaption:
    texts = {name: getattr(caption, name) for name in MAX_CHARS}
    return caption.model_copy(
        update={name: simplify(text) for name, text in texts.items() if text is not None}
    )
