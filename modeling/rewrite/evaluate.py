"""How good rewrites of held-out prompts are: structure, fields, facts. Counts beside shares."""

import time
from collections import Counter
from collections.abc import Sequence

from modeling.rewrite.answer import CHOICES, Mode, read_answer
from modeling.rewrite.errors import AnswerError
from modeling.rewrite.pairs import Pair
from modeling.rewrite.prompt import messages
from modeling.rewrite.rewriter import Ask, Rewrite, RewriteConfig, Rewriter, Writer
from schemas.base import StrictModel
from schemas.caption import StructuredCaption

_TEXTS = ("background", "lighting")


class Ratio(StrictModel):
    num: int
    of: int

    def __str__(self) -> str:
        return f"{self.num}/{self.of}" + (f" ({self.num / self.of:.0%})" if self.of else "")


class Evaluation(StrictModel):
    """Of one writer in one mode.

    `fields`: over the pairs whose prompt speaks of the field, how often the answer has the
    target's value (texts: the same words, case and punctuation aside). `left_empty`: in normal
    mode, over the fields that the prompt does not speak of, how often the answer says nothing, as
    it should. `short`: the same words as the target's. Facts are counted in three stages: in the
    first answer, after the second look, after restoring.
    """

    writer: str
    mode: Mode
    num_prompts: int
    valid: Ratio
    short: Ratio
    fields: dict[str, Ratio]
    all_fields: Ratio
    left_empty: Ratio | None
    facts: dict[str, Ratio]  # by kind, in the first answer
    all_facts: Ratio
    facts_after_revision: Ratio
    facts_after_restoring: Ratio
    num_answers: int
    seconds: float


def evaluate(writer: Writer, pairs: Sequence[Pair], config: RewriteConfig) -> Evaluation:
    """Over the pairs of the config's mode. Raises RewriteError when there are none."""
    started = time.monotonic()
    chosen = [pair for pair in pairs if pair.mode == config.mode]
    rewrites = Rewriter(writer, config).rewrite([pair.prompt for pair in chosen])
    seconds = time.monotonic() - started
    fields: dict[str, list[bool]] = {}
    empty: list[bool] = []
    shorts: list[bool] = []
    for pair, rewrite in zip(chosen, rewrites, strict=True):
        shorts.append(_same(rewrite.answer, pair.target, "short_description"))
        for name in (*_TEXTS, *CHOICES):
            if name in pair.said:
                fields.setdefault(name, []).append(_same(rewrite.answer, pair.target, name))
            elif config.mode == "normal":
                empty.append(getattr(rewrite.answer, name) is None)
    stages = _facts(rewrites)
    return Evaluation(
        writer=writer.name,
        mode=config.mode,
        num_prompts=len(chosen),
        valid=Ratio(num=len(rewrites), of=len(chosen)),
        short=_ratio(shorts),
        fields={name: _ratio(marks) for name, marks in sorted(fields.items())},
        all_fields=_ratio([mark for marks in fields.values() for mark in marks]),
        left_empty=_ratio(empty) if empty else None,
        facts=_facts_by_kind(rewrites),
        all_facts=stages["answer"],
        facts_after_revision=stages["revision"],
        facts_after_restoring=stages["restored"],
        num_answers=sum(rewrite.num_answers for rewrite in rewrites),
        seconds=round(seconds, 1),
    )


def count_valid(writer: Writer, pairs: Sequence[Pair], mode: Mode) -> Ratio:
    """How many first answers are valid; for a writer that nothing holds to the schema."""
    chosen = [pair for pair in pairs if pair.mode == mode]
    asks = [
        Ask(messages(pair.prompt, mode, writer.wording), mode, pair.prompt, 0, 0.0)
        for pair in chosen
    ]
    valid = []
    for text in writer.write(asks):
        try:
            read_answer(text, mode, writer.name)
        except AnswerError:
            valid.append(False)
        else:
            valid.append(True)
    return _ratio(valid)


def lines(evaluation: Evaluation) -> list[str]:
    """For people."""
    e = evaluation
    rows = [
        f"{e.writer}, {e.mode} mode, {e.num_prompts} held-out prompts, {e.seconds} s",
        f"  valid structure         {e.valid}",
        f"  short description same  {e.short}",
        f"  fields right            {e.all_fields}",
    ]
    rows += [f"    {name:<21} {ratio}" for name, ratio in e.fields.items()]
    if e.left_empty is not None:
        rows.append(f"  unsaid fields empty     {e.left_empty}")
    rows.append(f"  facts in first answer   {e.all_facts}")
    rows += [f"    {kind:<21} {ratio}" for kind, ratio in e.facts.items()]
    rows.append(f"  facts after revision    {e.facts_after_revision}")
    rows.append(f"  facts after restoring   {e.facts_after_restoring}")
    return rows


def _facts(rewrites: Sequence[Rewrite]) -> dict[str, Ratio]:
    """Facts kept up to each stage."""
    counts = Counter(check.kept_by for rewrite in rewrites for check in rewrite.checks)
    total, kept = counts.total(), 0
    stages = {}
    for stage in ("answer", "revision", "restored"):
        kept += counts[stage]
        stages[stage] = Ratio(num=kept, of=total)
    return stages


def _facts_by_kind(rewrites: Sequence[Rewrite]) -> dict[str, Ratio]:
    kinds: dict[str, list[bool]] = {}
    for rewrite in rewrites:
        for check in rewrite.checks:
            kinds.setdefault(check.kind, []).append(check.kept_by == "answer")
    return {kind: _ratio(marks) for kind, marks in sorted(kinds.items())}


def _same(answer: StructuredCaption, target: StructuredCaption, name: str) -> bool:
    found, wanted = getattr(answer, name), getattr(target, name)
    if found is None or wanted is None:
        return found is wanted
    return _plain(found) == _plain(wanted)


def _plain(text: str) -> str:
    kept = "".join(char for char in text.lower() if char.isalnum() or char.isspace())
    return " ".join(kept.split())


def _ratio(marks: Sequence[bool]) -> Ratio:
    return Ratio(num=sum(marks), of=len(marks))
