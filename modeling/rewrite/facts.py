"""What a prompt asks for that a rewrite must not lose, found and checked by rule.

Numbers (with what they count), quoted text, names, relations (who is where to whom), and terms
that name a shot type or a camera movement. Names and relations are read in English only: other
languages put capitals and relations elsewhere, and a rewrite translates them. What was not checked
is said. The rules err on the strict side: a synonym of a counted thing reads as lost.
"""

import re
import unicodedata
from typing import Literal

from modeling.rewrite.terms import said_camera, said_shot_type
from modeling.rewrite.words import (
    ENGLISH_NUMBERS,
    OTHER_NUMBERS,
    OTHER_STOP_WORDS,
    RELATIONS,
    STOP_WORDS,
    Relation,
    stem,
)
from schemas.base import StrictModel
from schemas.caption import VLM_FIELDS, StructuredCaption

FactKind = Literal["number", "quoted", "name", "relation", "term"]

_QUOTES = re.compile(
    r"\"([^\"]+)\"|\u201c([^\u201d]+)\u201d|\u201e([^\u201c\u201d]+)[\u201c\u201d]"
    r"|\u00ab([^\u00bb]+)\u00bb|\u300c([^\u300d]+)\u300d|\u300e([^\u300f]+)\u300f"
    r"|(?<!\w)'([^']{1,200})'(?!\w)|(?<!\w)\u2018([^\u2019]{1,200})\u2019(?!\w)"
)
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[^\w\s]")
_SENTENCE_BREAKS = frozenset(".!?:;\n")
_BREAKS = frozenset(".!?:;,-()")
_HAN_NUMBERS = {
    char: n
    for n, char in enumerate("\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341", 1)
}
_HAN_NUMBERS["\u4e24"] = 2
# A Chinese numeral counts only before one of the common measure words.
_HAN_COUNT = re.compile(
    r"([\u4e00\u4e8c\u4e24\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341])[\u53ea\u4e2a\u4f4d\u540d\u6761\u5339\u5934\u8f86\u68f5\u6735\u628a\u5f20\u8258\u5ea7\u7fa4]"
)
_COUNTED_WINDOW, _BEFORE_WINDOW, _AFTER_WINDOW = 4, 8, 5  # words


class Fact(StrictModel):
    """`text` is as the prompt has it; `value` is what the check compares."""

    kind: FactKind
    text: str
    value: tuple[str, ...]
    before: tuple[str, ...] = ()  # stems of who (relation) or of what is counted (number)
    after: tuple[str, ...] = ()  # stems of to whom


def find_facts(prompt: str) -> tuple[Fact, ...]:
    """Each fact once, in the order of kinds."""
    quoted = [next(filter(None, match.groups())) for match in _QUOTES.finditer(prompt)]
    facts = [Fact(kind="quoted", text=text, value=(_spaced(text),)) for text in quoted]
    open_text = _QUOTES.sub(" ", prompt)
    in_english = is_english(prompt)
    facts += _numbers(open_text, in_english=in_english)
    if in_english:
        facts += _names(open_text)
        facts += _relations(open_text)
    if (shot := said_shot_type(open_text)) is not None:
        facts.append(Fact(kind="term", text=shot, value=("shot_type", shot)))
    if (camera := said_camera(open_text)) is not None:
        facts.append(Fact(kind="term", text=camera, value=("camera_movement", camera)))
    return tuple(dict.fromkeys(facts))


def unchecked_kinds(prompt: str) -> tuple[FactKind, ...]:
    """What the rules cannot read in this prompt."""
    if not is_english(prompt):
        return ("name", "relation")
    return ("name",) if _is_all_capitals(prompt) else ()


def is_kept(fact: Fact, caption: StructuredCaption) -> bool:
    """Whether a caption still says it, in one of its seven fields (a term: in its own field)."""
    if fact.kind == "term":
        return bool(getattr(caption, fact.value[0]) == fact.value[1])
    texts = [text for name in VLM_FIELDS if (text := getattr(caption, name)) is not None]
    if fact.kind == "quoted":
        return any(fact.value[0] in _spaced(text) for text in texts)
    if fact.kind == "name":
        wanted = f" {' '.join(fact.value)} "
        return any(wanted in f" {' '.join(_lower_words(text))} " for text in texts)
    found = [other for text in texts for other in _same_kind(fact, text)]
    return any(_agrees(fact, other) for other in found)


def is_english(prompt: str) -> bool:
    """By script and by the small words of five other languages. In doubt, yes."""
    letters = [char for char in prompt if char.isalpha()]
    num_latin = sum("LATIN" in unicodedata.name(char, "") for char in letters)
    if num_latin < 0.7 * len(letters):
        return False
    words = _lower_words(prompt)
    return sum(w in OTHER_STOP_WORDS for w in words) <= sum(w in STOP_WORDS for w in words)


def _numbers(text: str, *, in_english: bool = True) -> list[Fact]:
    """Digits of any script, and words for 2 to 12; what is counted, in English alone."""
    words = _words(text)
    facts = []
    for place, word in enumerate(words):
        value = _number(word, in_english=in_english)
        if value is None:
            continue
        counted = []
        for near in words[place + 1 : place + 1 + _COUNTED_WINDOW if in_english else place]:
            number = _number(near, in_english=in_english)
            if near in _BREAKS or number is not None or near.lower() in STOP_WORDS:
                break
            counted.append(stem(near))
        shown = " ".join(words[place : place + 1 + len(counted)])
        facts.append(Fact(kind="number", text=shown, value=(value,), before=tuple(counted)))
    facts += [
        Fact(kind="number", text=match.group(), value=(str(_HAN_NUMBERS[match.group(1)]),))
        for match in _HAN_COUNT.finditer(text)
    ]
    return facts


def _number(word: str, *, in_english: bool = True) -> str | None:
    if word[0].isdigit():
        digits = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in word)
        return digits.rstrip(".,:")
    number = (ENGLISH_NUMBERS if in_english else OTHER_NUMBERS).get(word.lower())
    return None if number is None else str(number)


def _names(text: str) -> list[Fact]:
    """Words with a capital inside a sentence, and those beside them."""
    if _is_all_capitals(text):
        return []
    words = _words(text)
    facts, run = [], []
    starts_sentence = True
    for word in [*words, "."]:
        has_capital = word[0].isupper() and word != "I" and not (word.isupper() and len(word) < 4)
        if has_capital:
            run.append((word, starts_sentence))
        else:
            # One word at the start of a sentence may have its capital from there.
            if run and not (len(run) == 1 and run[0][1]):
                named = [w for w, at_start in run if not (at_start and w.lower() in STOP_WORDS)]
                named = [w for w in named if w.lower() not in ENGLISH_NUMBERS]
                if named:
                    lower = tuple(w.lower() for w in named)
                    facts.append(Fact(kind="name", text=" ".join(named), value=lower))
            run = []
        starts_sentence = word in _SENTENCE_BREAKS or word == "-"
    return facts


def _relations(text: str) -> list[Fact]:
    lowered = text.lower()
    facts: list[Fact] = []
    taken: list[tuple[int, int]] = []
    for relation in RELATIONS:  # longer phrases first
        for match in relation.pattern.finditer(lowered):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            before = _near(_words(lowered[: match.start()])[::-1], _BEFORE_WINDOW)
            after = _near(_words(lowered[match.end() :]), _AFTER_WINDOW, stop=True)
            both = set(before) & set(after)
            before = [word for word in before if word not in both]
            after = [word for word in after if word not in both]
            if before and after:
                facts.append(_relation_fact(relation, match.group(), before, after))
    return facts


def _relation_fact(relation: Relation, phrase: str, before: list[str], after: list[str]) -> Fact:
    """In one direction: "b right of a" is stored as "a left of b"."""
    if relation.inverse_of is not None:
        name, before, after = relation.inverse_of, after, before
        shown = f"{' '.join(after[::-1])} {phrase} {' '.join(before)}"
    else:
        name = relation.name
        shown = f"{' '.join(before[::-1])} {phrase} {' '.join(after)}"
    return Fact(
        kind="relation", text=shown, value=(name,), before=tuple(before), after=tuple(after)
    )


def _near(words: list[str], window: int, *, stop: bool = False) -> list[str]:
    """Stems of the content words up to the clause's end; with `stop`, of one noun phrase."""
    stems: list[str] = []
    for word in words[:window]:
        if word in _BREAKS:
            break
        if word in STOP_WORDS:
            if stop and stems:
                break
            continue
        stems.append(stem(word))
    return stems


def _same_kind(fact: Fact, text: str) -> list[Fact]:
    return _numbers(text) if fact.kind == "number" else _relations(text)


def _agrees(fact: Fact, other: Fact) -> bool:
    if fact.value != other.value:
        return False
    if fact.kind == "number":
        return not fact.before or bool(set(fact.before) & set(other.before))
    pairs = [(other.before, other.after)]
    if fact.value == ("next_to",):
        pairs.append((other.after, other.before))
    return any(
        bool(set(fact.before) & set(before)) and bool(set(fact.after) & set(after))
        for before, after in pairs
    )


def _is_all_capitals(text: str) -> bool:
    """Titles and shouting: capitals say nothing there."""
    words = [word for word in _words(text) if word[0].isalpha()]
    return sum(word[0].isupper() for word in words) > 0.6 * len(words)


def _words(text: str) -> list[str]:
    return [match.group() for match in _WORD.finditer(text)]


def _lower_words(text: str) -> list[str]:
    return [word.lower() for word in _words(text) if word[0].isalnum()]


def _spaced(text: str) -> str:
    return " ".join(text.split())
