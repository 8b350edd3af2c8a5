"""Word lists of the rules in `facts.py`: numbers, small words, relations, plural forms."""

import re
from dataclasses import dataclass

# One is left out: in most of these languages it is the article.
_ENGLISH_NUMBERS = "two three four five six seven eight nine ten eleven twelve"
ENGLISH_NUMBERS: dict[str, int] = {
    **{word: number for number, word in enumerate(_ENGLISH_NUMBERS.split(), start=2)},
    "dozen": 12,
    "pair": 2,
    "couple": 2,
}
# Italian six is left out: it is more often "you are".
OTHER_NUMBERS: dict[str, int] = {
    word: number
    for words in (
        "zwei drei vier f\u00fcnf sechs sieben acht neun zehn elf zw\u00f6lf",
        "deux trois quatre cinq six sept huit neuf dix onze douze",
        "dos tres cuatro cinco seis siete ocho nueve diez once doce",
        "due tre quattro cinque - sette otto nove dieci undici dodici",  # codespell:ignore tre
    )
    for number, word in enumerate(words.split(), start=2)
}

_ENGLISH = (
    "a an the this that these those of in on at to for from with and or but by as is are was were "
    "be been being it its his her their my your our me i we you he she they who which where while "
    "into onto over near some any there then than very so please make show can want see video clip "
    "generate create picture image scene shot camera style mood vibe background lighting"
)
_OTHER_LANGUAGES = (
    "der die das ein eine einen einem und mit auf im ist sind von "  # codespell:ignore ist
    "zum zur vor neben "  # codespell:ignore vor
    "le la les un une des et avec dans sur est sont du au aux pr\u00e8s "
    "el los las una unos y con en es del al junto "
    "il lo gli uno e nel sul della di che "
    "um uma os com em da na no ao"
)
STOP_WORDS = frozenset(_ENGLISH.split())
OTHER_STOP_WORDS = frozenset(_OTHER_LANGUAGES.split()) - {"a", "no", "me"}

_IRREGULAR = {
    "children": "child",
    "kids": "child",
    "kid": "child",
    "men": "man",
    "women": "woman",
    "people": "person",
    "feet": "foot",
    "mice": "mouse",
    "geese": "goose",
    "leaves": "leaf",
    "wolves": "wolf",
    "knives": "knife",
}


@dataclass(frozen=True, slots=True)
class Relation:
    """`inverse_of` names the relation that says the same the other way round."""

    name: str
    pattern: re.Pattern[str]
    inverse_of: str | None = None


def _relation(name: str, phrases: str, inverse_of: str | None = None) -> Relation:
    return Relation(name, re.compile(rf"(?<!\w)(?:{phrases})(?!\w)"), inverse_of)


RELATIONS = (
    _relation("left_of", r"(?:(?:to|on|at) the )?left (?:side )?of"),
    _relation("right_of", r"(?:(?:to|on|at) the )?right (?:side )?of", "left_of"),
    _relation("behind", r"behind"),
    _relation("in_front_of", r"in front of", "behind"),
    _relation("above", r"above"),
    _relation("below", r"below|beneath|underneath|under", "above"),
    _relation("on_top_of", r"on top of"),
    _relation("next_to", r"next to|beside|alongside"),
    _relation("between", r"between"),
    _relation("inside", r"inside(?: of)?"),
    _relation("chases", r"chas(?:e|es|ed|ing)"),
    _relation("follows", r"follow(?:s|ed|ing)?"),
    _relation("holds", r"hold(?:s|ing)?|held"),
    _relation("carries", r"carr(?:y|ies|ied|ying)"),
    _relation("rides", r"rid(?:e|es|ing)|rode"),
)


def stem(word: str) -> str:
    """Plural and singular to one form, as far as rules reach."""
    word = word.lower().removesuffix("'s")
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
