"""The JSON that a model is to answer with: its schema, and its one reading.

    {"request": "<tag>", "short_description": "...", ..., "atmosphere": "calm"}

`request` repeats a tag that is made of the clip's id and the hash of its frames. A constrained
model can write no other, so an answer that was meant for another clip never passes for this one's.
"""

import json
from typing import Any, Literal

from pipeline.caption.config import AnswerLimits, VlmConfig
from schemas.base import StrictModel
from schemas.caption import VLM_FIELDS, Text

TAG_FIELD = "request"
_TAG_DIGITS = 16
_ASCII_TEXT = r"^[A-Za-z0-9(][ !#-\[\]-~]*$"  # no quote, no backslash: a character is a byte
_ANY_TEXT = r'^[^\s"\\\x00-\x1f\x7f][^"\\\x00-\x1f\x7f]*$'
_MAX_BYTES = {"en": 1, "zh": 4, "any": 4}  # of a character in UTF-8


class Words(StrictModel):
    """The seven descriptions, all there."""

    short_description: Text
    dense_description: Text
    background: Text
    style: Text
    shot_type: Text
    lighting: Text
    atmosphere: Text


class AnswerDefect(Exception):  # noqa: N818 - what is wrong with an answer, not with the program
    """Why an answer is not taken: a stable word that can be counted, and one line."""

    def __init__(self, kind: str, line: str) -> None:
        super().__init__(line)
        self.kind = kind


def max_chars(limits: AnswerLimits) -> dict[str, int]:
    """Field -> its longest text, for the fields that are free text."""
    return {
        "short_description": limits.short_chars,
        "dense_description": limits.dense_chars,
        "background": limits.background_chars,
        "lighting": limits.lighting_chars,
    }


def choices(limits: AnswerLimits) -> dict[str, tuple[str, ...]]:
    """Field -> its words, for the fields that choose one."""
    return {
        "style": limits.styles,
        "shot_type": limits.shot_types,
        "atmosphere": limits.atmospheres,
    }


def answer_schema(
    config: VlmConfig, tag: str, *, detail: Literal["plain", "lengths", "patterns"]
) -> dict[str, Any]:
    """JSON schema of the answer to the request `tag`.

    `plain` holds what every server knows (types, enumerations), `lengths` bounds the texts too,
    `patterns` says of which characters they are made.
    """
    lengths, words = max_chars(config.answer), choices(config.answer)
    properties: dict[str, Any] = {TAG_FIELD: {"type": "string", "enum": [tag]}}
    for name in VLM_FIELDS:
        if name in words:
            properties[name] = {"type": "string", "enum": list(words[name])}
            continue
        properties[name] = {"type": "string"}
        if detail != "plain":
            properties[name] |= {
                "minLength": config.answer.min_chars,
                "maxLength": lengths[name],
            }
        if detail == "patterns":
            properties[name]["pattern"] = _ASCII_TEXT if config.language == "en" else _ANY_TEXT
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def longest_answer(config: VlmConfig) -> int:
    """Tokens that hold any answer of the schema: a token is at least a byte."""
    lengths, words = max_chars(config.answer), choices(config.answer)
    filled = {name: max(words[name], key=len) for name in words}
    filled |= {
        name: "x" * (length * _MAX_BYTES[config.language]) for name, length in lengths.items()
    }
    return len(json.dumps({TAG_FIELD: "0" * _TAG_DIGITS, **filled})) + _TAG_DIGITS


def read_answer(text: str, config: VlmConfig, tag: str) -> Words:
    """The words of an answer to the request `tag`. Raises AnswerDefect.

    Text around the one JSON object is let pass (a code fence, "Here it is:"); nothing inside it is
    mended.
    """
    found = _object_in(text)
    if TAG_FIELD not in found:
        raise AnswerDefect("caption_unmatched", f"the answer does not repeat its request {tag!r}")
    if found[TAG_FIELD] != tag:
        raise AnswerDefect(
            "caption_wrong_clip", f"the answer is to request {found[TAG_FIELD]!r}, not to {tag!r}"
        )
    if unknown := sorted(found.keys() - {TAG_FIELD, *VLM_FIELDS}):
        raise AnswerDefect("caption_schema", f"fields that were not asked for: {unknown}")
    limits = config.answer
    lengths, words = max_chars(limits), choices(limits)
    values: dict[str, str] = {}
    for name in VLM_FIELDS:
        value = found.get(name)
        if not isinstance(value, str):
            raise AnswerDefect("caption_schema", f"{name} must be a text, got {value!r:.60}")
        value = " ".join(value.split())
        if name in words and value not in words[name]:
            raise AnswerDefect(
                "caption_schema", f"{name} must be one of {words[name]}, got {value!r:.60}"
            )
        if name in lengths and len(value) < limits.min_chars:
            raise AnswerDefect("caption_empty", f"{name} says nothing: {value!r}")
        if name in lengths and len(value) > lengths[name]:
            raise AnswerDefect(
                "caption_schema", f"{name} has {len(value)} characters, at most {lengths[name]}"
            )
        values[name] = value
    return Words.model_validate(values)


def _object_in(text: str) -> dict[str, Any]:
    start = text.find("{")
    if start < 0:
        raise AnswerDefect("caption_no_json", f"no JSON object in the answer {text[:60]!r}")
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise AnswerDefect("caption_no_json", f"broken JSON: {error}") from error
    assert isinstance(found, dict)  # it begins with a brace
    return found
