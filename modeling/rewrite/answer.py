"""The JSON that a model is to answer a prompt with: its schema, and its one reading.

    {"short_description": "...", "shot_type": "close-up shot", "camera_movement": "zoom_in"}

Normal mode: what the prompt does not say is left out. Master mode: all seven fields are filled.
"""

import json
import re
from typing import Any, Literal, get_args

from pydantic import ValidationError

from modeling.rewrite.errors import AnswerError
from schemas.caption import ATMOSPHERES, SHOT_TYPES, STYLES, VLM_FIELDS, StructuredCaption
from schemas.scores import CameraMovement

Mode = Literal["normal", "master"]

CAMERA_MOVEMENTS: tuple[CameraMovement, ...] = get_args(CameraMovement)
CHOICES = {
    "style": STYLES,
    "shot_type": SHOT_TYPES,
    "atmosphere": ATMOSPHERES,
    "camera_movement": CAMERA_MOVEMENTS,
}
# Characters. Together about 200 tokens: what the text encoder reads by default is 256.
MAX_CHARS = {
    "short_description": 160,
    "dense_description": 480,
    "background": 160,
    "lighting": 100,
}
MIN_CHARS = 4
ANSWER_FIELDS = (*VLM_FIELDS, "camera_movement")
_JSON_OVERHEAD_CHARS = 260  # names, quotes, commas and the longest words to choose from


def required_fields(mode: Mode) -> tuple[str, ...]:
    return VLM_FIELDS if mode == "master" else ("short_description",)


def answer_schema(mode: Mode, prompt: str, *, with_patterns: bool = True) -> dict[str, Any]:
    """JSON schema of the answer.

    Texts are of ASCII and of the letters of the prompt itself (a name, a quoted sign), without
    double quotes and backslashes. `with_patterns` False leaves that to the reading: servers differ
    in the patterns that they take.
    """
    properties: dict[str, Any] = {}
    for name in ANSWER_FIELDS:
        if name in CHOICES:
            properties[name] = {"type": "string", "enum": list(CHOICES[name])}
            continue
        properties[name] = {"type": "string", "maxLength": MAX_CHARS[name]}
        if with_patterns:
            # The grammar takes either: the pattern's own bound says the same as maxLength.
            rest = f"{{{MIN_CHARS - 1},{MAX_CHARS[name] - 1}}}"
            letters = _own_letters(prompt)
            properties[name] = {
                "type": "string",
                "pattern": rf"^[A-Za-z0-9'{letters}][ !#-\[\]-~{letters}]{rest}$",
            }
    return {
        "type": "object",
        "properties": properties,
        "required": list(required_fields(mode)),
        "additionalProperties": False,
    }


def longest_answer_tokens(prompt: str) -> int:
    """Holds any answer of the schema: a token is at least a byte."""
    bytes_of_letter = max((len(letter.encode()) for letter in _own_letters(prompt)), default=1)
    return sum(MAX_CHARS.values()) * bytes_of_letter + _JSON_OVERHEAD_CHARS


def read_answer(text: str, mode: Mode, captioner: str) -> StructuredCaption:
    """The caption that an answer holds. Raises AnswerError.

    Text around the one JSON object is let pass (a code fence, "Here it is:"); null is the same as
    left out; nothing else is mended.
    """
    start = text.find("{")
    if start < 0:
        raise AnswerError(f"no JSON object in the answer {text[:60]!r}")
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"broken JSON: {error}") from error
    filled = {name: value for name, value in found.items() if value is not None}
    if unknown := sorted(filled.keys() - set(ANSWER_FIELDS)):
        raise AnswerError(f"fields that were not asked for: {unknown}")
    if missing := [name for name in required_fields(mode) if name not in filled]:
        raise AnswerError(f"fields that must be filled: {missing}")
    for name, value in filled.items():
        if not isinstance(value, str):
            raise AnswerError(f"{name} must be a text, got {value!r:.60}")
        filled[name] = value = " ".join(value.split())
        if name in CHOICES and value not in CHOICES[name]:
            raise AnswerError(f"{name} must be one of {CHOICES[name]}, got {value!r:.60}")
        if name in MAX_CHARS and not MIN_CHARS <= len(value) <= MAX_CHARS[name]:
            raise AnswerError(
                f"{name} has {len(value)} characters, must be {MIN_CHARS} to {MAX_CHARS[name]}"
            )
        if name in MAX_CHARS and not re.search(r"\w", value):
            raise AnswerError(f"{name} says nothing: {value!r}")
    try:
        return StructuredCaption(captioner=captioner, **filled)
    except ValidationError as error:
        raise AnswerError(f"not a caption: {error.errors()[0]['msg']}") from error


def answer_text(caption: StructuredCaption) -> str:
    """The answer that holds a caption: compact, fields in their order, empty ones left out."""
    filled = {name: getattr(caption, name) for name in ANSWER_FIELDS}
    return json.dumps(
        {name: value for name, value in filled.items() if value is not None},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _own_letters(prompt: str) -> str:
    """Letters and digits beyond ASCII, once each: those may stand in the answer too."""
    return "".join(sorted({char for char in prompt if ord(char) > 127 and char.isalnum()}))
