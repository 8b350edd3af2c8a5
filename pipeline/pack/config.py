"""How clips are written: shard sizes and encoder settings. All of it is part of the plan's hash."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel

PACK_VERSION = 3  # raise it when the same plan would give other bytes


class EncodeConfig(StrictModel):
    """H.264 by libx264. Lower `crf` is better and larger; 17 is hard to tell from the source."""

    crf: Annotated[int, Field(ge=0, le=51)] = 17
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = (
        "veryfast"
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95


class PackConfig(StrictModel):
    """A shard is cut at whichever comes first. Sizes are estimated before anything is encoded."""

    max_samples_per_shard: Annotated[int, Field(ge=1)] = 500
    max_bytes_per_shard: Annotated[int, Field(ge=1)] = 256 * 2**20
    video_bits_per_pixel: Annotated[float, Field(gt=0)] = 0.15  # estimate at the default crf
    image_bits_per_pixel: Annotated[float, Field(gt=0)] = 2.5
    encode: EncodeConfig = EncodeConfig()
