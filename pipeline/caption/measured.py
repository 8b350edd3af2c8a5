"""The `measured` captioner: says what was measured and leaves the rest empty.

It looks at no picture, so the seven descriptions stay None. Other captioners write those and take
camera movement and tags from here.
"""

from collections.abc import Iterator

from pipeline.caption.config import CaptionConfig, TagConfig
from pipeline.tier.records import ClipRecord
from schemas.caption import StructuredCaption
from schemas.scores import ClipScores

CAPTIONER = "measured"


def measured_caption(record: ClipRecord, config: CaptionConfig) -> StructuredCaption:
    """Camera movement where the classifier is confident, tags from provenance and scores."""
    camera = record.scores.camera
    is_confident = (
        camera is not None
        and camera.confidence >= config.min_camera_confidence
        and camera.is_sure is not False
    )
    return StructuredCaption(
        captioner=CAPTIONER,
        camera_movement=camera.movement if camera is not None and is_confident else None,
        source_tags=record.provenance.tags,
        quality_tags=tuple(quality_tags(record.scores, config.tags)),
    )


def quality_tags(scores: ClipScores, config: TagConfig) -> Iterator[str]:
    """Words for what is out of the ordinary, in one fixed order."""
    if (clarity := scores.clarity) is not None:
        if clarity.effective_height < config.soft_below_lines:
            yield "soft focus"
        if clarity.effective_height > config.sharp_above_lines:
            yield "sharp"
    if (exposure := scores.exposure) is not None:
        if exposure.mean_luma < config.dark_below_luma:
            yield "dark"
        if exposure.mean_luma > config.bright_above_luma:
            yield "bright"
        if exposure.luma_sd < config.low_contrast_below_sd:
            yield "low contrast"
        if exposure.saturation < config.muted_below_saturation:
            yield "muted colors"
        if exposure.saturation > config.vivid_above_saturation:
            yield "vivid colors"
    if (motion := scores.motion) is not None:
        if motion.speed < config.slow_below_speed:
            yield "little motion"
        if motion.speed > config.fast_above_speed:
            yield "fast motion"
    if (crop := scores.crop) is not None and crop.text_mean_area > config.text_above_area:
        yield "text in the picture"
