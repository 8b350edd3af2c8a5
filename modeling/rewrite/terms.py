"""Terms of the trade and the plain words that captions use.

Rewriting simplifies terms (HunyuanVideo, section 4.5). The list is short and by rule, so that it
holds whatever the model does: a term that names a camera movement or a shot type belongs into that
field, one that names light is replaced by what can be seen.
"""

import re
from typing import cast, get_args

from schemas.scores import CameraMovement

# The first phrase of each list is the plainest. People say them; captions have the field's word.
CAMERA_PHRASES: dict[CameraMovement, tuple[str, ...]] = {
    "zoom_in": ("zoom in", "zooms in", "zooming in", "push in", "dolly in", "punch in"),
    "zoom_out": ("zoom out", "zooms out", "zooming out", "pull out", "dolly out", "pull back"),
    "pan_up": ("pan up", "crane up", "pedestal up", "boom up"),
    "pan_down": ("pan down", "crane down", "pedestal down", "boom down"),
    "pan_left": ("pan left", "truck left", "camera moves left", "track left"),
    "pan_right": ("pan right", "truck right", "camera moves right", "track right"),
    "tilt_up": ("tilt up", "tilts up", "tilting up"),
    "tilt_down": ("tilt down", "tilts down", "tilting down"),
    "tilt_left": ("tilt left", "whip left"),
    "tilt_right": ("tilt right", "whip right"),
    "around_left": ("orbit left", "circles to the left", "arc left"),
    "around_right": ("orbit right", "circles to the right", "arc right"),
    "static_shot": (
        "static camera",
        "static shot",
        "locked-off shot",
        "on a tripod",
        "still camera",
    ),
    "handheld_shot": ("handheld", "handheld camera", "shaky cam", "hand-held"),
}
SHOT_PHRASES: dict[str, tuple[str, ...]] = {
    "aerial shot": ("aerial shot", "drone shot", "bird's-eye view", "aerial view"),
    "close-up shot": ("close-up", "close up", "closeup", "CU", "tight shot"),
    "medium shot": ("medium shot", "mid shot", "waist-up shot", "MS"),
    "long shot": ("long shot", "wide shot", "full shot", "WS"),
    "extreme close-up shot": ("extreme close-up", "macro shot", "ECU", "extreme close up"),
    "extreme long shot": ("extreme long shot", "establishing shot", "extreme wide shot", "EWS"),
}
PLAIN_WORDS = {
    "golden hour": "warm low sunlight",
    "blue hour": "dim blue light after sunset",
    "chiaroscuro": "strong contrast of light and dark",
    "low-key lighting": "dark, with few bright spots",
    "high-key lighting": "bright and even light",
    "rim light": "a bright edge from light behind",
    "bokeh": "a blurred background",
    "volumetric lighting": "visible beams of light",
    "god rays": "beams of sunlight",
    "slo-mo": "slow motion",
    "timelapse": "time lapse",
    "specular highlights": "bright reflections",
}
# "pans slowly to the left" is "pan left"; a pan to cook in is none.
_MOVE = re.compile(
    r"(?<!frying )(?<!sauce )\b(pan|tilt|truck|orbit|arc|crane|zoom|doll)(?:y|s|ies|n?ing|n?ed)?"
    r"(?: \w+ly)?(?: to| towards?)?(?: the)? (left|right|up|down|in|out)(?:wards?)?\b",
    re.I,
)
_QUOTED = re.compile(r"'[^']*'")


def simplify(text: str) -> str:
    """Plain words for terms, outside of quoted text (in single quotes, as answers have it)."""
    pieces: list[str] = []
    end = 0
    for quoted in _QUOTED.finditer(text):
        pieces += [_plain(text[end : quoted.start()]), quoted.group()]
        end = quoted.end()
    return "".join(pieces) + _plain(text[end:])


def said_camera(prompt: str) -> CameraMovement | None:
    """The movement that a prompt names, if it names exactly one."""
    prompt = _MOVE.sub(_verb_and_direction, prompt)
    found = {name for name in get_args(CameraMovement) if _says(prompt, CAMERA_PHRASES[name])}
    return cast(CameraMovement, found.pop()) if len(found) == 1 else None


def said_shot_type(prompt: str) -> str | None:
    """The shot type that a prompt names, if it names exactly one."""
    left = prompt
    found: set[str] = set()
    # The longer phrase first: an extreme close-up is no close-up.
    phrases = [(phrase, shot) for shot, all_of in SHOT_PHRASES.items() for phrase in all_of]
    for phrase, shot in sorted(phrases, key=lambda pair: -len(pair[0])):
        pattern = _pattern(phrase)
        if pattern.search(left):
            found.add(shot)
            left = pattern.sub(" ", left)
    return found.pop() if len(found) == 1 else None


def _verb_and_direction(move: re.Match[str]) -> str:
    verb = move[1].lower()
    return f"{'dolly' if verb == 'doll' else verb} {move[2].lower()}"


def _says(prompt: str, phrases: tuple[str, ...]) -> bool:
    return any(_pattern(phrase).search(prompt) for phrase in phrases)


def _plain(text: str) -> str:
    for term, plain in PLAIN_WORDS.items():
        text = _pattern(term).sub(plain, text)
    return text


def _pattern(phrase: str) -> re.Pattern[str]:
    """The phrase between word ends; abbreviations in capitals only as they are."""
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", 0 if phrase.isupper() else re.I)
