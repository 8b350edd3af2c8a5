"""Limits and thresholds of the split step."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.media.config import LoopFilterSkip, MediaLimits
from schemas.base import StrictModel

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Lookout = Literal["off", "doubtful", "all"]


class ClearStartConfig(StrictModel):
    """The clear first frame: the first in the opening that is nearly as sharp as its best."""

    max_opening_share: Share = 0.1  # of the clip that may be discarded at most
    max_opening_s: Annotated[float, Field(ge=0)] = 0.5
    min_share_of_best: Share = 0.9


class EvidenceConfig(StrictModel):
    """What counts as a boundary. Content: mean change of hue, saturation and value, 8-bit levels.

    The strength of a hard candidate is min(content / full_content, 1) * (1 - likeness), in [0, 1].
    Where TransNetV2 looked, strength and its probability together must reach the sum of what is
    asked of each alone, so that one may make up for the other.
    """

    min_content: Positive = 12.0  # below, a change is no candidate
    min_ratio: Annotated[float, Field(ge=1)] = 1.5  # of a change over its neighbors
    full_content: Positive = 50.0
    min_strength: Share = 0.3  # accepts without the second witness
    sure_strength: Share = 0.6  # with `sure_ratio`: no need to ask the second witness
    sure_ratio: Annotated[float, Field(ge=1)] = 2.5
    lone_ratio: Annotated[float, Field(ge=1)] = 7.0  # with `max_lone_likeness`: a cut in any case
    max_lone_likeness: Share = 0.87
    max_slow_likeness: Share = 0.5  # another picture than 16 frames ago: perhaps a dissolve
    min_probability: Share = 0.5  # accepts TransNetV2's boundaries where nothing is abrupt
    flash_likeness: Share = 0.9  # from here on a soft cut is a flash, unless TransNetV2 is sure:
    min_probability_in_flash: Share = 0.9
    min_transition: Share = 0.5  # TransNetV2's measure for the frames of a gradual change
    min_contrast: Annotated[float, Field(ge=0)] = 5.0  # 8-bit levels; below, a frame is blank
    max_fade_s: Positive = 2.0  # on each side of the blank frames


class SplitConfig(StrictModel):
    """Where one source is cut, and which pieces become clips.

    A clip of `max_clip_s` or more is cut into equal parts. Twice the longest sample (129 frames at
    24 per second) fits below the default, so that every part still holds one.
    """

    min_clip_s: Positive = 1.5  # 33 frames at 24 per second, after the clear start
    max_clip_s: Positive = 11.0
    short_side_px: Annotated[int, Field(ge=27, le=270)] = 72  # of the pictures compared
    transnet: Lookout = "doubtful"  # where the second witness looks
    transnet_weights: str = "transnetv2"  # a name in weights.toml or path:FILE
    transnet_provider: Literal["cpu", "cuda"] = "cpu"
    skip_loop_filter: LoopFilterSkip = "none"
    evidence: EvidenceConfig = EvidenceConfig()
    clear_start: ClearStartConfig = ClearStartConfig()
    limits: MediaLimits = MediaLimits()
