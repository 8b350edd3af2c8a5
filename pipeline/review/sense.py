"""Refuses text that nobody could have meant as a caption. Rough: it finds slips, not lies."""

import re
from collections import Counter

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\ufeff]")
_MARKUP = re.compile(r"</?[a-zA-Z][^>]*>|```|\{\s*\"")
_RUN = re.compile(r"(\S)\1{5,}")
_WORD = re.compile(r"[^\W\d_]+")
_MAX_WORD = 40  # letters; the longest words of captions stay well below
_MIN_WORDS_TO_REPEAT = 8
_MAX_SAME_SHARE = 0.5


def nonsense(text: str) -> str | None:
    """What is wrong with a caption field, in one line; None where nothing is.

    Letters of every script count. Scripts without spaces are spared the length of words.
    """
    if not text.strip():
        return "is blank; leave it as it was, or write something"
    if _CONTROL.search(text):
        return "holds control or invisible characters"
    if _MARKUP.search(text):
        return "holds markup or JSON, write plain sentences"
    words = _WORD.findall(text)
    if not words:
        return "holds no word"
    if run := _RUN.search(text):
        return f"repeats {run[1]!r} {len(run[0])} times in a row"
    if long := [word for word in words if word.isascii() and len(word) > _MAX_WORD]:
        return f"holds a word of {len(long[0])} letters"
    word, count = Counter(word.lower() for word in words).most_common(1)[0]
    if len(words) >= _MIN_WORDS_TO_REPEAT and count > _MAX_SAME_SHARE * len(words):
        return f"says {word!r} {count} times in {len(words)} words"
    return None
