"""Limits that keep one hostile or broken file from taking a worker down."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel

# Of which pictures, in FFmpeg's words. `noref`: of those that no other is made from, so that what
# it costs them in looks goes no further.
LoopFilterSkip = Literal["none", "noref", "all"]


class MediaLimits(StrictModel):
    """Checked before memory is taken; a file beyond a limit fails with the limit in its reason."""

    max_video_pixels: Annotated[int, Field(gt=0)] = 40_000_000  # 8192 x 4320 passes
    max_image_pixels: Annotated[int, Field(gt=0)] = 100_000_000  # 300 MB as RGB
    max_duration_s: Annotated[float, Field(gt=0)] = 12 * 3600.0
    max_streams: Annotated[int, Field(gt=0)] = 64
    max_num_bytes: Annotated[int, Field(gt=0)] = 64 * 2**30
    max_decode_s: Annotated[float, Field(gt=0)] = 3600.0  # spent inside the decoder, per opening
