"""Which part of a clip a run looks at: size, frames, frame interval, crop.

The shape of a view follows from the clip's bucket alone, so that batches can be planned without
opening a clip; where the view lies inside the clip is drawn per sample and step.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from modeling.data.draw import whole_number
from schemas.base import StrictModel
from schemas.tier import Bucket

_SIDE_MULTIPLE = 16
Side = Annotated[int, Field(ge=16, multiple_of=16)]


class ViewConfig(StrictModel):
    """The defaults leave clips as they are in the shards. Nothing is ever enlarged."""

    max_frames: Annotated[int, Field(ge=1)] | None = None  # 4n+1
    area_side: Side | None = None  # scaled to the area of a square of this side, aspect kept
    crop_side: Side | None = None  # a square cut out, after scaling
    placement: Literal["first", "random"] = "first"  # first frames and center, or anywhere
    max_frame_interval: Annotated[int, Field(ge=1)] = 1  # drawn from 1 to this, where it fits

    @model_validator(mode="after")
    def _frames_are_4n_plus_1(self) -> Self:
        if self.max_frames is not None and self.max_frames % 4 != 1:
            raise ValueError(f"max_frames must be 4n+1, got {self.max_frames}")
        return self

    def bucket(self, source: Bucket) -> Bucket:
        """The shape that a clip of the source bucket has in a batch."""
        height, width = self._scaled_size(source)
        if self.crop_side is not None:
            height, width = min(height, self.crop_side), min(width, self.crop_side)
        num_frames = min(source.num_frames, self.max_frames or source.num_frames)
        return Bucket(num_frames=num_frames, height=height, width=width)

    def draw(self, source: Bucket, *, seed: int, key: str, step: int) -> "View":
        """The place of one sample's view at one step."""
        shape = self.bucket(source)
        scale_to_cover = max(
            *(
                inner / outer
                for inner, outer in zip(
                    self._scaled_size(source), (source.height, source.width), strict=True
                )
            )
        )
        height = max(shape.height, round(source.height * scale_to_cover))
        width = max(shape.width, round(source.width * scale_to_cover))
        gaps = shape.num_frames - 1
        longest = max(1, (source.num_frames - 1) // gaps) if gaps else 1
        interval, start = 1, 0
        top, left = (height - shape.height) // 2, (width - shape.width) // 2

        def drawn(bound: int, stream: str) -> int:
            return whole_number(bound, seed=seed, key=key, step=step, stream=stream)

        if self.max_frame_interval > 1:
            interval = 1 + drawn(min(longest, self.max_frame_interval), "frame interval")
        if self.placement == "random":
            start = drawn(source.num_frames - gaps * interval, "first frame")
            top = drawn(height - shape.height + 1, "crop top")
            left = drawn(width - shape.width + 1, "crop left")
        return View(shape, start, interval, (height, width), top, left)

    def _scaled_size(self, source: Bucket) -> tuple[int, int]:
        if self.area_side is None:
            return source.height, source.width
        scale = min(1.0, self.area_side / (source.height * source.width) ** 0.5)
        return _rounded(source.height, scale), _rounded(source.width, scale)


def _rounded(side: int, scale: float) -> int:
    return max(_SIDE_MULTIPLE, round(side * scale / _SIDE_MULTIPLE) * _SIDE_MULTIPLE)


@dataclass(frozen=True, slots=True)
class View:
    """Scale the frames to `scaled_HW`, then cut `shape` out at (top, left)."""

    shape: Bucket
    start: int
    interval: int
    scaled_HW: tuple[int, int]
    top: int
    left: int

    @property
    def frames(self) -> NDArray[np.int64]:
        """Indices of the wanted frames in the clip."""
        return self.start + self.interval * np.arange(self.shape.num_frames)
