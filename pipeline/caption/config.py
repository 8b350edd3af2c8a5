"""Which captioner runs and where its words begin. Nothing here admits or refuses a clip."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel
from schemas.scores import Share

CAPTION_VERSION = 1


class TagConfig(StrictModel):
    """From a number to a word. Between the two ends of a pair nothing is said.

    First values by judgement: an ordinary scene should get no tag.
    """

    soft_below_lines: Annotated[float, Field(ge=0)] = 300.0  # clarity.effective_height
    sharp_above_lines: Annotated[float, Field(ge=0)] = 600.0
    dark_below_luma: Annotated[float, Field(ge=0, le=255)] = 50.0  # exposure.mean_luma
    bright_above_luma: Annotated[float, Field(ge=0, le=255)] = 180.0
    low_contrast_below_sd: Annotated[float, Field(ge=0)] = 25.0  # exposure.luma_sd
    muted_below_saturation: Share = 0.1  # exposure.saturation
    vivid_above_saturation: Share = 0.55
    slow_below_speed: Annotated[float, Field(ge=0)] = 2.0  # motion.speed, % of the diagonal / s
    fast_above_speed: Annotated[float, Field(ge=0)] = 40.0
    text_above_area: Share = 0.01  # crop.text_mean_area


class CaptionConfig(StrictModel):
    captioner: Literal["measured"] = "measured"
    min_camera_confidence: Share = 0.6  # below it a caption says nothing about the camera
    tags: TagConfig = TagConfig()
    clips_per_part: Annotated[int, Field(ge=1)] = 256
