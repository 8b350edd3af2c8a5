"""Names of the tiers, and the bucket: the shape (frames, height, width) that a batch shares."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from schemas.base import StrictModel

VideoTier = Literal["tier-1", "tier-2", "tier-3", "tier-4", "tier-5"]
ImageTier = Literal["image-1", "image-2"]
TierName = VideoTier | ImageTier
VIDEO_TIERS: tuple[VideoTier, ...] = get_args(VideoTier)
IMAGE_TIERS: tuple[ImageTier, ...] = get_args(ImageTier)

_BUCKET_NAME = re.compile(r"f(\d{3,})_(\d+)x(\d+)")


class Bucket(StrictModel):
    """Frames are 4n+1 (causal VAE: 4x in time), sides multiples of 16 (8x VAE, 2x patch)."""

    num_frames: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=16, multiple_of=16)]
    width: Annotated[int, Field(ge=16, multiple_of=16)]

    @model_validator(mode="after")
    def _frames_are_4n_plus_1(self) -> Self:
        if self.num_frames % 4 != 1:
            raise ValueError(f"num_frames must be 4n+1, got {self.num_frames}")
        return self

    @property
    def name(self) -> str:
        """`f065_256x256`: frames, then height x width."""
        return f"f{self.num_frames:03d}_{self.height}x{self.width}"

    @classmethod
    def from_name(cls, name: str) -> Self:
        match = _BUCKET_NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"not a bucket name: {name!r}; expected a name like f065_256x256")
        num_frames, height, width = (int(group) for group in match.groups())
        return cls(num_frames=num_frames, height=height, width=width)


class ApprovalRow(StrictModel):
    """One row of the `approvals` table: a person looked at the clip and said yes or no."""

    clip_id: str
    approved: bool
    reviewer: str | None = None


def parse_tier(text: str) -> TierName:
    """`3` and `tier-3` are the same tier. Raises ValueError with the allowed names."""
    name = f"tier-{text}" if text.isdigit() else text
    for tier in (*VIDEO_TIERS, *IMAGE_TIERS):
        if tier == name:
            return tier
    raise ValueError(f"no tier {text!r}; choose 1-5, image-1, image-2 or all")
