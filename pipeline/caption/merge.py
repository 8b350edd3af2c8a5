"""One caption from the windows of a long clip, by rule: nothing is said that no window said."""

import re
from collections import Counter
from collections.abc import Sequence

from pipeline.caption.answer import Words, max_chars
from pipeline.caption.config import AnswerLimits

_SENTENCES = re.compile(r"[^.!?\u3002\uff01\uff1f]+[.!?\u3002\uff01\uff1f]*")


def merge_words(windows: Sequence[Words], limits: AnswerLimits) -> Words:
    """`windows` in the order of time, at least one.

    The dense description joins theirs, each sentence once, as whole sentences within the limit
    (every window gets an equal share of it). Other texts are the first window's; of listed words
    the most frequent counts, the earlier of equals.
    """
    if len(windows) == 1:
        return windows[0]
    first = windows[0]
    return Words(
        short_description=first.short_description,
        dense_description=_join(
            [window.dense_description for window in windows],
            max_chars(limits)["dense_description"],
        ),
        background=first.background,
        style=_most_frequent([window.style for window in windows]),
        shot_type=_most_frequent([window.shot_type for window in windows]),
        lighting=first.lighting,
        atmosphere=_most_frequent([window.atmosphere for window in windows]),
    )


def _most_frequent(words: Sequence[str]) -> str:
    counts = Counter(words)
    return max(words, key=lambda word: counts[word])


def _join(texts: Sequence[str], max_length: int) -> str:
    share = max_length // len(texts)
    seen: set[str] = set()
    kept: list[str] = []
    for number, text in enumerate(texts, start=1):
        room = share * number - len(" ".join(kept))
        for sentence in (found.strip() for found in _SENTENCES.findall(text)):
            if sentence.casefold() in seen:
                continue
            if len(sentence) + 1 > room:
                break
            seen.add(sentence.casefold())
            kept.append(sentence if sentence[-1] in ".!?\u3002\uff01\uff1f" else f"{sentence}.")
            room -= len(kept[-1]) + 1
    return " ".join(kept) if kept else texts[0][:max_length]
