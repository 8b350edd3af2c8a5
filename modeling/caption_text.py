"""Training text from structured captions: of varying length and pattern, by named draws.

HunyuanVideo (arXiv 2412.03603, section 3.2) trains on captions synthesized from the structured ones
by dropout, permutation and combination of fields; it publishes no shares, so those below are ours.
A field that is None is as if it were not there. All draws hang on (seed, key, step) alone: the text
of a sample does not depend on the number of workers or ranks.
"""

import re
from typing import Annotated, Literal

from pydantic import Field

from modeling.data.draw import permutation, share, whole_number
from schemas.base import StrictModel
from schemas.caption import VLM_FIELDS, StructuredCaption
from schemas.scores import CameraMovement

Share = Annotated[float, Field(ge=0, le=1)]
CaptionForm = Literal["canonical", "short", "dense", "mixed", "json"]

_CONTENT = (*VLM_FIELDS, "camera_movement", "source_tags", "quality_tags")
_LABELED = ("background", "style", "shot_type", "lighting", "atmosphere")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# As the classifier names them: a pan carries the camera along, a tilt turns it in its place.
_CAMERA_PHRASES: dict[CameraMovement, str] = {
    "zoom_in": "The camera zooms in.",
    "zoom_out": "The camera zooms out.",
    "pan_up": "The camera moves up.",
    "pan_down": "The camera moves down.",
    "pan_left": "The camera moves to the left.",
    "pan_right": "The camera moves to the right.",
    "tilt_up": "The camera turns up.",
    "tilt_down": "The camera turns down.",
    "tilt_left": "The camera turns to the left.",
    "tilt_right": "The camera turns to the right.",
    "around_left": "The camera circles to the left.",
    "around_right": "The camera circles to the right.",
    "static_shot": "The camera does not move.",
    "handheld_shot": "The camera is held by hand.",
}


class CaptionTextConfig(StrictModel):
    """How texts vary. The five forms are drawn in proportion to their weights.

    `canonical`: every field in its order, as `StructuredCaption.to_prompt`, which sampling uses.
    `short`, `dense`: that one description, with camera and tags drawn in. `mixed`: a drawn number
    of fields, from one to all, in drawn order. `json`: such fields as canonical JSON.
    """

    drop_text: Share = 0.1  # empty text, for classifier-free guidance
    canonical: Annotated[float, Field(ge=0)] = 0.2
    short: Annotated[float, Field(ge=0)] = 0.15
    dense: Annotated[float, Field(ge=0)] = 0.15
    mixed: Annotated[float, Field(ge=0)] = 0.4
    json_form: Annotated[float, Field(ge=0)] = 0.1
    camera_share: Share = 0.7  # in short and dense, where the movement is known
    camera_sentence_share: Share = 0.5  # "The camera zooms in." over "Camera movement: zoom in."
    tags_share: Share = 0.3  # in short and dense, per list of tags
    label_share: Share = 0.5  # "Lighting: soft." over "Soft.", per field of mixed
    cut_dense_share: Share = 0.3  # the dense description ends after a drawn sentence


class _Draws:
    """The named draws of one sample at one step."""

    def __init__(self, seed: int, key: str, step: int) -> None:
        self._seed, self._key, self._step = seed, key, step

    def share(self, name: str) -> float:
        return share(seed=self._seed, key=self._key, step=self._step, stream=f"text {name}")

    def below(self, bound: int, name: str) -> int:
        stream = f"text {name}"
        return whole_number(bound, seed=self._seed, key=self._key, step=self._step, stream=stream)

    def shuffled(self, items: tuple[str, ...], name: str) -> tuple[str, ...]:
        stream = f"text {name}"
        order = permutation(
            len(items), seed=self._seed, key=self._key, step=self._step, stream=stream
        )
        return tuple(items[index] for index in order)


def caption_text(
    caption: StructuredCaption, config: CaptionTextConfig, *, seed: int, key: str, step: int
) -> str:
    """The text of one sample at one step; "" where it is dropped, or the caption is empty."""
    draws = _Draws(seed, key, step)
    filled = tuple(name for name in _CONTENT if getattr(caption, name))
    if not filled or drops_text(config, seed=seed, key=key, step=step):
        return ""
    form = drawn_form(config, draws.share("form"))
    if form == "canonical":
        return caption.to_prompt()
    caption = _cut_dense(caption, config, draws)
    if form == "json":
        return _only(caption, _some(filled, draws)).to_json()
    if form == "mixed":
        names = _some(filled, draws)
        return " ".join(_rendered(caption, name, config, draws) for name in names)
    names = _description(form, filled, config, draws)
    return " ".join(_rendered(caption, name, config, draws, label=False) for name in names)


def drops_text(config: CaptionTextConfig, *, seed: int, key: str, step: int) -> bool:
    """Whether a sample goes without text at a step."""
    return _Draws(seed, key, step).share("drop") < config.drop_text


def drawn_form(config: CaptionTextConfig, point: float) -> CaptionForm:
    """The form at a point of [0, 1). Canonical where all weights are 0."""
    weights: dict[CaptionForm, float] = {
        "canonical": config.canonical,
        "short": config.short,
        "dense": config.dense,
        "mixed": config.mixed,
        "json": config.json_form,
    }
    left = point * sum(weights.values())
    for form, weight in weights.items():
        if left < weight:
            return form
        left -= weight
    return "canonical"


def _some(filled: tuple[str, ...], draws: _Draws) -> tuple[str, ...]:
    """From one to all of the filled fields, in drawn order; every number is equally likely."""
    return draws.shuffled(filled, "order")[: 1 + draws.below(len(filled), "number")]


def _description(
    form: CaptionForm, filled: tuple[str, ...], config: CaptionTextConfig, draws: _Draws
) -> tuple[str, ...]:
    """The wanted description or the other one, then camera and tags; never nothing."""
    wanted = ["short_description", "dense_description"]
    if form == "dense":
        wanted.reverse()
    names = [name for name in wanted if name in filled][:1]
    for name in ("camera_movement", "source_tags", "quality_tags"):
        limit = config.camera_share if name == "camera_movement" else config.tags_share
        if name in filled and draws.share(f"with {name}") < limit:
            names.append(name)
    return tuple(names) or draws.shuffled(filled, "order")[:1]


def _rendered(
    caption: StructuredCaption,
    name: str,
    config: CaptionTextConfig,
    draws: _Draws,
    *,
    label: bool = True,
) -> str:
    """One field as text."""
    if name == "camera_movement" and caption.camera_movement is not None:
        if draws.share("camera sentence") < config.camera_sentence_share:
            return _CAMERA_PHRASES[caption.camera_movement]
    elif label and name in _LABELED and draws.share(f"label {name}") < config.label_share:
        return f"{name.replace('_', ' ').capitalize()}: {_only(caption, (name,)).to_prompt()}"
    return _only(caption, (name,)).to_prompt()


def _only(caption: StructuredCaption, names: tuple[str, ...]) -> StructuredCaption:
    kept = {name: getattr(caption, name) for name in names}
    return StructuredCaption.model_construct(captioner=caption.captioner, **kept)


def _cut_dense(
    caption: StructuredCaption, config: CaptionTextConfig, draws: _Draws
) -> StructuredCaption:
    text = caption.dense_description
    if text is None or draws.share("cut dense") >= config.cut_dense_share:
        return caption
    sentences = _SENTENCE_END.split(text)
    kept = " ".join(sentences[: 1 + draws.below(len(sentences), "dense sentences")])
    return caption.model_copy(update={"dense_description": kept})
