"""What is wrong with words that are valid JSON: loops, refusals, cut ends, leaks, other languages.

Rules only: each is meant to be sure rather than complete. A caption that breaks one is asked for
again with another seed.
"""

import re
from collections import Counter
from collections.abc import Sequence

from pipeline.caption.answer import AnswerDefect, Words, max_chars
from pipeline.caption.config import VlmConfig
from pipeline.caption.prompt import instructions

_MAX_LOOP_WORDS = 12
_MIN_LOOP_TURNS = 4  # of one word; two turns fewer of a longer run
_MAX_CHARACTER_RUN = 9
_LONG_TEXT_WORDS = 40
_MIN_DISTINCT_SHARE = 0.5  # of runs of four words; plain prose stays above 0.9
_LEAK_WORDS = 8  # in a row, as in the instructions
_MIN_LATIN_SHARE = 0.8  # of the letters
_MIN_COMMON_SHARE = 0.08  # of the words; English prose lies around 0.4
_MIN_WORDS_TO_TELL = 12
_MIN_HAN_SHARE = 0.5

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_UNSPACED_LOOP = re.compile(r"([^\s\d]{2,40}?)\1{4,}")  # for scripts without spaces
_SENTENCE_ENDS = '.!?)"\u3002\uff01\uff1f\u2026'
_PLACEHOLDERS = {
    "n a", "none", "null", "unknown", "string", "text", "description", "short description",
    "dense description", "background", "lighting", "not applicable", "not available", "todo",
    "no description", "your answer", "empty", "undefined", "lorem ipsum",
}  # fmt: skip
_REFUSAL = re.compile(
    r"\b(?:as an? (?:ai|artificial|language model)"
    r"|(?:i am|i'm|i\u2019m) (?:sorry|unable|not able)"
    r"|i (?:cannot|can't|can\u2019t|can not|could not|couldn't|won't|will not) "
    r"(?:assist|help|describe|provide|view|see|process|analy[sz]e|comply|fulfil\w*|generate|identify)"
    r"|(?:unable|not able) to (?:view|see|access|process|assist|describe|analy[sz]e)"
    r"|no (?:image|video|picture|frame)s? (?:was|were|is|are|has been|have been) "
    r"(?:provided|attached|given)"
    r"|please (?:provide|upload|share|attach) (?:the|an?|your) (?:image|video|picture|clip|frame))",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"<\|[^|>]{1,40}\|>|</?s>|<(?:image|video|img|end_of_utterance|fake_token_around_image|pad|eos|bos)>"
    r"|\[/?INST\]|^(?:assistant|system|user)\s*:|```",
    re.IGNORECASE,
)
_COMMON_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "a an the and or but of in on at to from with without by for is are was were be being as "
        "it its this that these those there their his her he she they them who which while into "
        "over under behind through near up down out off both two one some no not then",
    )
)


def check_words(words: Words, config: VlmConfig) -> None:
    """Raises AnswerDefect for the first rule that the words break."""
    lengths = max_chars(config.answer)
    texts = {name: getattr(words, name) for name in lengths}
    for name, text in texts.items():
        for check in (_check_emptiness, _check_refusal, _check_repetition):
            check(name, text)
        _check_leak(name, text, config)
        _check_end(name, text, lengths[name])
    if texts["short_description"] == texts["background"] == texts["lighting"]:
        raise AnswerDefect("caption_repetition", "short description, background, lighting are one")
    _check_language(" ".join(texts.values()), config.language)


def _check_emptiness(name: str, text: str) -> None:
    plain = " ".join(_plain_words(text))
    if sum(character.isalpha() for character in text) < 3 or plain in _PLACEHOLDERS:
        raise AnswerDefect("caption_empty", f"{name} says nothing: {text!r:.60}")


def _check_refusal(name: str, text: str) -> None:
    if (found := _REFUSAL.search(text)) is not None:
        raise AnswerDefect("caption_refusal", f"{name} refuses: {found.group()!r}")


def _check_repetition(name: str, text: str) -> None:
    if (run := re.search(rf"(\S)\1{{{_MAX_CHARACTER_RUN},}}", text)) is not None:
        raise AnswerDefect("caption_repetition", f"{name} repeats {run.group(1)!r}")
    if (run := _UNSPACED_LOOP.search(text)) is not None:
        raise AnswerDefect("caption_repetition", f"{name} loops over {run.group(1)!r:.60}")
    words = _plain_words(text)
    for length in range(1, min(_MAX_LOOP_WORDS, len(words) // 2) + 1):
        turns = _MIN_LOOP_TURNS if length == 1 else _MIN_LOOP_TURNS - 1
        if (loop := _loop(words, length, turns)) is not None:
            raise AnswerDefect("caption_repetition", f"{name} loops over {' '.join(loop)!r:.60}")
    sentences = Counter(" ".join(_plain_words(s)) for s in re.split(r"[.!?\u3002]", text))
    if any(count >= 3 and " " in sentence for sentence, count in sentences.items()):
        raise AnswerDefect("caption_repetition", f"{name} says one sentence three times")
    if len(words) >= _LONG_TEXT_WORDS:
        runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
        if len(set(runs)) < _MIN_DISTINCT_SHARE * len(runs):
            raise AnswerDefect("caption_repetition", f"{name} says the same again and again")


def _loop(words: Sequence[str], length: int, num_turns: int) -> Sequence[str] | None:
    """The first run of `length` words that stands `num_turns` times in a row."""
    needed = length * (num_turns - 1)
    matches = 0  # words in a row that equal the one `length` before
    for place in range(length, len(words)):
        matches = matches + 1 if words[place] == words[place - length] else 0
        if matches >= needed:
            return words[place - length + 1 : place + 1]
    return None


def _check_leak(name: str, text: str, config: VlmConfig) -> None:
    if (found := _MARKUP.search(text)) is not None:
        raise AnswerDefect("caption_prompt_leak", f"{name} holds markup: {found.group()!r}")
    prompt = f" {' '.join(_plain_words(instructions(config)))} "
    words = _plain_words(text)
    for first in range(len(words) - _LEAK_WORDS + 1):
        run = " ".join(words[first : first + _LEAK_WORDS])
        if f" {run} " in prompt:
            raise AnswerDefect("caption_prompt_leak", f"{name} repeats the instructions: {run!r}")


def _check_end(name: str, text: str, max_length: int) -> None:
    """A text that fills its room and ends amid a sentence was cut there by the schema."""
    if len(text) >= max_length - 1 and text[-1] not in _SENTENCE_ENDS:
        raise AnswerDefect("caption_truncated", f"{name} ends amid a sentence: ...{text[-30:]!r}")


def _check_language(text: str, language: str) -> None:
    letters = [character for character in text if character.isalpha()]
    if language == "en":
        latin = sum(character < "\u0250" for character in letters)
        words = [word.lower() for word in _WORD.findall(text)]
        common = sum(word in _COMMON_ENGLISH for word in words)
        is_other = latin < _MIN_LATIN_SHARE * len(letters) or (
            len(words) >= _MIN_WORDS_TO_TELL and common < _MIN_COMMON_SHARE * len(words)
        )
    elif language == "zh":
        han = sum("\u4e00" <= character <= "\u9fff" for character in letters)
        is_other = han < _MIN_HAN_SHARE * len(letters)
    else:
        return
    if is_other:
        raise AnswerDefect("caption_language", f"not in the language {language!r}: {text!r:.60}")


def _plain_words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
