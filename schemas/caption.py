"""The structured caption and its one rendering to text. Nothing else turns a caption into words."""

from typing import Annotated

from pydantic import Field

from schemas.base import StrictModel, canonical_json
from schemas.scores import CameraMovement

Text = Annotated[str, Field(min_length=1, max_length=4000)]

# The paper's seven fields (HunyuanVideo, arXiv 2412.03603, section 3.2), in its order.
VLM_FIELDS = (
    "short_description",
    "dense_description",
    "background",
    "style",
    "shot_type",
    "lighting",
    "atmosphere",
)
# Words to choose from; the paper's examples come first. A captioner may be given other lists.
STYLES = (
    "documentary",
    "cinematic",
    "realistic",
    "sci-fi",
    "animation",
    "fantasy",
    "vintage",
    "abstract",
    "news",
    "screen recording",
)
SHOT_TYPES = (
    "aerial shot",
    "close-up shot",
    "medium shot",
    "long shot",
    "extreme close-up shot",
    "extreme long shot",
)
ATMOSPHERES = (
    "cozy",
    "tense",
    "mysterious",
    "calm",
    "cheerful",
    "dramatic",
    "energetic",
    "gloomy",
    "melancholic",
    "romantic",
    "solemn",
    "neutral",
)


class StructuredCaption(StrictModel):
    """Every field may be None: a captioner fills what it knows and leaves the rest empty."""

    captioner: str  # what wrote it: `measured`, or the backend and model
    short_description: Text | None = None
    dense_description: Text | None = None
    background: Text | None = None
    style: Text | None = None
    shot_type: Text | None = None
    lighting: Text | None = None
    atmosphere: Text | None = None
    camera_movement: CameraMovement | None = None  # from the classifier, only when confident
    source_tags: tuple[str, ...] = ()
    quality_tags: tuple[str, ...] = ()

    def to_prompt(self) -> str:
        """One paragraph: the filled fields as sentences, in the order of the class."""
        sentences = [s for name in VLM_FIELDS if (s := getattr(self, name)) is not None]
        if self.camera_movement is not None:
            sentences.append(f"Camera movement: {self.camera_movement.replace('_', ' ')}")
        sentences.extend(", ".join(tags) for tags in (self.source_tags, self.quality_tags) if tags)
        return " ".join(s if s.endswith((".", "!", "?")) else f"{s}." for s in sentences)

    def to_json(self) -> str:
        """Canonical JSON of the filled fields, without the captioner's name."""
        fields = self.model_dump(mode="json", exclude={"captioner"}, exclude_none=True)
        return canonical_json({k: v for k, v in fields.items() if v != []})
