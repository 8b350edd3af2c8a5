"""One sample to be written: where it lies, what to cut out, and the JSON that goes beside it."""

from typing import Annotated

from pydantic import Field

from pipeline.media.window import sample_window
from pipeline.tier.records import ClipRecord
from pipeline.tier.rules import Decisions
from schemas.base import StrictModel
from schemas.caption import StructuredCaption
from schemas.clip import ClipRow
from schemas.scores import Box
from schemas.shard import ShardSample
from schemas.tier import Bucket, TierName


class PixelCrop(StrictModel):
    """A rectangle of the displayed picture, in its pixels."""

    left: Annotated[int, Field(ge=0)]
    top: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]

    def share_of(self, width_px: int, height_px: int) -> Box:
        return Box(
            left=self.left / width_px,
            top=self.top / height_px,
            right=(self.left + self.width) / width_px,
            bottom=(self.top + self.height) / height_px,
        )


class PackJob(StrictModel):
    clip: ClipRow
    crop_px: PixelCrop
    sample: ShardSample

    @property
    def bucket(self) -> Bucket:
        sample = self.sample
        return Bucket(num_frames=sample.num_frames, height=sample.height, width=sample.width)


def crop_of(decisions: Decisions, row: int) -> PixelCrop:
    crop = decisions.shapes.crop
    return PixelCrop(
        left=int(crop.left[row]),
        top=int(crop.top[row]),
        width=int(crop.width[row]),
        height=int(crop.height[row]),
    )


def pack_job(
    record: ClipRecord,
    caption: StructuredCaption,
    tier: TierName,
    bucket: Bucket,
    crop_px: PixelCrop,
) -> PackJob:
    """The job of a clip that passed `tier` and fills `bucket`."""
    clip = record.clip
    window = sample_window(clip, bucket.num_frames)
    if window.num_frames != bucket.num_frames:
        raise ValueError(
            f"clip {clip.clip_id} holds {window.num_frames} samples, its bucket {bucket.name}"
        )
    duration_s = 0.0 if window.fps is None else window.num_frames / window.fps
    sample = ShardSample(
        clip_id=clip.clip_id,
        source_uri=clip.source_uri,
        source_sha256=clip.source_sha256,
        start_s=window.start_s,
        end_s=window.start_s + duration_s,
        media_kind=clip.media_kind,
        num_frames=bucket.num_frames,
        fps=window.fps,
        height=bucket.height,
        width=bucket.width,
        crop=crop_px.share_of(clip.width, clip.height),
        scores=record.scores,
        cluster=record.cluster,
        weight=record.weight,
        camera_movement=caption.camera_movement,
        caption=caption,
        tier=tier,
        provenance=record.provenance,
    )
    return PackJob(clip=clip, crop_px=crop_px, sample=sample)
