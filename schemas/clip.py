"""What is known about one clip: where it lies in its source. A clip stays virtual until packing."""

import hashlib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel
from schemas.source import MediaKind
from schemas.status import StatusRow

Seconds = Annotated[float, Field(ge=0)]
FrameIndex = Annotated[int, Field(ge=0)]  # 0-based, in decode (display) order
ShotKind = Literal["cut", "dissolve", "fade"]


class ClipRow(StatusRow):
    """One row of the `clips` table: a span [start_frame, end_frame) of one source.

    `start_s` is the time of the first frame and `end_s` that of the end of the last one, counted
    from the first frame of the source. A source without a usable clip has one row with `ok=False`
    and an empty `clip_id`; a shot that was dropped has one with its span and the reason. An image
    is a clip of one frame, with `fps` None.
    """

    clip_id: str
    source_uri: str
    source_sha256: str
    media_kind: MediaKind
    start_frame: FrameIndex = 0
    end_frame: FrameIndex = 0
    start_s: Seconds = 0.0
    end_s: Seconds = 0.0
    clear_frame: FrameIndex = 0  # the clear first frame, start_frame <= clear_frame < end_frame
    clear_s: Seconds = 0.0  # time of that frame
    fps: Annotated[float, Field(gt=0)] | None = None  # measured over the clip's own frames
    is_vfr: bool = False
    width: Annotated[int, Field(ge=0)] = 0  # displayed pixels
    height: Annotated[int, Field(ge=0)] = 0

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.start_frame

    @model_validator(mode="after")
    def _span_is_half_open(self) -> Self:
        if self.ok and not self.start_frame <= self.clear_frame < self.end_frame:
            raise ValueError(
                f"need start <= clear < end, got {self.start_frame}, {self.clear_frame}, "
                f"{self.end_frame}"
            )
        return self


class ShotRow(StrictModel):
    """One accepted boundary; `frame` is the first frame of the new shot."""

    source_uri: str
    source_sha256: str
    frame: FrameIndex
    kind: ShotKind
    first_frame: FrameIndex  # of the transition: equals `frame` for a cut
    last_frame: FrameIndex
    adaptive_score: float | None = None
    content_score: float | None = None
    transnet_score: float | None = None


class ShotCandidateRow(ShotRow):
    """A boundary that a witness proposed and the combination rejected, with the reason."""

    reason: str


def clip_id(source_sha256: str, start_frame: int, end_frame: int) -> str:
    """32 hex digits from content and span alone, so that a rerun rewrites and never adds."""
    text = f"{source_sha256}:{start_frame}:{end_frame}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
