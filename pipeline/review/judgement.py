"""What one person said about one clip. Judgements are added and never changed.

The criteria are those that HunyuanVideo (arXiv 2412.03603, section 3.1) names for its fine-tuning
set: four of visual beauty, three of motion.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.review.sense import nonsense
from schemas.base import StrictModel
from schemas.caption import VLM_FIELDS, StructuredCaption, Text
from schemas.scores import CameraMovement
from schemas.tier import TierName

HexId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Subset = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
# Starts and ends with a visible character, so that two names that look alike are one.
Reviewer = Annotated[str, Field(pattern=r"^\w([\w .@-]{0,62}\w)?$")]
UtcTime = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
Rating = Literal["good", "poor"]


class JudgementError(ValueError):
    """A judgement that cannot be taken: one line with the field and what is wrong with it."""


class Criteria(StrictModel):
    """None: not judged."""

    color_harmony: Rating | None = None
    lighting: Rating | None = None
    object_emphasis: Rating | None = None
    spatial_layout: Rating | None = None
    motion_speed: Rating | None = None
    action_integrity: Rating | None = None
    motion_blur: Rating | None = None


CRITERIA = tuple(Criteria.model_fields)


class CaptionFix(StrictModel):
    """The fields of a caption that the reviewer wrote anew. None: left as it was."""

    short_description: Text | None = None
    dense_description: Text | None = None
    background: Text | None = None
    style: Text | None = None
    shot_type: Text | None = None
    lighting: Text | None = None
    atmosphere: Text | None = None
    camera_movement: CameraMovement | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for name in VLM_FIELDS:
            text = getattr(self, name)
            if text is not None and (why := nonsense(text)) is not None:
                raise ValueError(f"{name}: {why}")
        return self

    @property
    def changes(self) -> dict[str, str]:
        return self.model_dump(exclude_none=True)

    def apply(self, caption: StructuredCaption) -> StructuredCaption:
        """The caption with the fix; `captioner` says that a person had a hand in it."""
        if not self.changes:
            return caption
        fixed = caption.model_dump() | self.changes | {"captioner": f"{caption.captioner}+human"}
        return StructuredCaption.model_validate(fixed)


class Judgement(StrictModel):
    """`judgement_id` is drawn by who judges: the same one sent twice is one judgement.

    A withdrawal names the judgement that counts no longer; what its reviewer had said about the
    clip before counts again.
    """

    judgement_id: HexId
    clip_id: HexId
    tier: TierName  # in whose shape the clip was looked at
    reviewer: Reviewer
    time: UtcTime
    verdict: Literal["approve", "reject", "withdraw"]
    withdraws: HexId | None = None
    criteria: Criteria = Criteria()
    subsets: tuple[Subset, ...] = ()  # of the fine-tuning set
    fix: CaptionFix = CaptionFix()
    note: Annotated[str, Field(max_length=1000)] | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None  # from the first look to the verdict

    @model_validator(mode="after")
    def _withdrawals_name_a_judgement(self) -> Self:
        if (self.verdict == "withdraw") != (self.withdraws is not None):
            raise ValueError(f"verdict {self.verdict!r} with withdraws={self.withdraws!r}")
        return self


def parse_judgement(values: Any) -> Judgement:
    """Raises JudgementError with one line that names the field."""
    try:
        return Judgement.model_validate(values)
    except ValidationError as error:
        raise JudgementError(first_line(error)) from error


def parse_fix(values: Any) -> CaptionFix:
    """Raises JudgementError with one line that names the field."""
    try:
        return CaptionFix.model_validate(values)
    except ValidationError as error:
        raise JudgementError(first_line(error)) from error


def first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "no such field"
    elif first["type"] == "string_too_short":
        message = "is empty; leave it as it was, or write something"
    given = (
        "" if first["type"] in ("value_error", "missing") else f" (got {_short(first['input'])})"
    )
    return f"{place}: {message}{given}" if place else f"{message}{given}"


def _short(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
