"""What a model is asked. The same words for every clip come first, so that servers cache them.

instructions | pictures, each with its time | the tag of the request
"""

import hashlib
import json

from pipeline.caption.answer import TAG_FIELD, choices, max_chars
from pipeline.caption.config import VlmConfig
from schemas.base import canonical_json
from schemas.caption import VLM_FIELDS

_INSTRUCTIONS = """\
You describe video clips for a dataset that trains a text-to-video model. You see frames of one \
clip in the order of time, each with its time in seconds. Say only what can be seen. Do not guess \
names, places, thoughts or sounds. Do not describe the movement of the camera. Do not mention \
frames, pictures, the clip or these instructions."""

_MEANINGS = {
    "short_description": "one sentence: the main subject and what it does",
    "dense_description": "subjects, their looks, actions in the order of time, and transitions",
    "background": "the surroundings behind the main subject",
    "style": "one of",
    "shot_type": "one of",
    "lighting": "where the light comes from, its strength and its color",
    "atmosphere": "one of",
}
_LANGUAGES = {"en": "English", "zh": "Chinese", "any": "the language of your choice"}
_PLACEHOLDER = "the request that is named last"


def instructions(config: VlmConfig) -> str:
    """The part that is equal for every clip."""
    lengths, words = max_chars(config.answer), choices(config.answer)
    lines = [
        config.instructions or _INSTRUCTIONS,
        f"Write in {_LANGUAGES[config.language]}. Answer with one JSON object and nothing else. "
        "Its fields, in this order:",
        f"- {TAG_FIELD}: {_PLACEHOLDER}, copied exactly",
    ]
    for name in VLM_FIELDS:
        if name in words:
            lines.append(f"- {name}: {_MEANINGS[name]} {json.dumps(list(words[name]))}")
        else:
            lines.append(f"- {name}: {_MEANINGS[name]}; at most {lengths[name]} characters")
    return "\n".join(lines) + "\n"


def frame_line(number: int, time_s: float) -> str:
    """Before each picture."""
    return f"Frame {number} at {time_s:.2f} s:"


def video_line(num_frames: int, first_s: float, last_s: float) -> str:
    """Before a video that stands for the pictures."""
    return f"{num_frames} frames from {first_s:.2f} s to {last_s:.2f} s:"


def request_line(tag: str) -> str:
    """After the pictures: the only words that differ between clips."""
    return f"Request: {tag}\nNow write its JSON object."


def prompt_sha256(config: VlmConfig) -> str:
    """Changes with every word that a model reads, but for times and tags."""
    text = canonical_json(
        [instructions(config), frame_line(1, 0.0), video_line(1, 0.0, 0.0), request_line("")]
    )
    return hashlib.sha256(text.encode()).hexdigest()
