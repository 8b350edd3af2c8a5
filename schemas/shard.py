"""The contract between curation and training: sample, index row, shard entry, manifest."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel
from schemas.caption import StructuredCaption
from schemas.scores import Box, CameraMovement, ClipScores
from schemas.source import MediaKind, Provenance
from schemas.tier import Bucket, TierName

SCHEMA_VERSION: Literal[1] = 1
Count = Annotated[int, Field(ge=0)]


class ShardSample(StrictModel):
    """The `<clip_id>.json` member: everything known about the media member beside it."""

    clip_id: str
    source_uri: str
    source_sha256: str
    start_s: Annotated[float, Field(ge=0)]  # of the written window, on the source timeline
    end_s: Annotated[float, Field(ge=0)]
    media_kind: MediaKind
    num_frames: Annotated[int, Field(ge=1)]
    fps: Annotated[float, Field(gt=0)] | None  # None for images
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    crop: Box
    scores: ClipScores
    cluster: Count | None
    weight: Annotated[float, Field(ge=0)]
    camera_movement: CameraMovement | None
    caption: StructuredCaption
    tier: TierName
    provenance: Provenance
    subsets: tuple[str, ...] = ()  # of the fine-tuning set, as reviewers sorted it: tier 5 only


class ShardEntry(StrictModel):
    """One tar file. Paths are relative to the manifest."""

    path: str
    index_path: str
    bucket: str
    num_samples: Annotated[int, Field(ge=1)]
    num_bytes: Annotated[int, Field(ge=1)]
    sha256: str
    index_sha256: str


class FunnelStep(StrictModel):
    """How many clips one rule removed, as the first rule that failed."""

    reason: str
    num_clips: Count


class Funnel(StrictModel):
    """clips = packed + rejected by reason + failed by step, exactly."""

    num_clips: Count
    num_packed: Count
    rejected: tuple[FunnelStep, ...]
    failed: tuple[FunnelStep, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        parts = (*self.rejected, *self.failed)
        total = self.num_packed + sum(step.num_clips for step in parts)
        if total != self.num_clips:
            raise ValueError(f"funnel does not add up: {self.num_clips} clips, {total} accounted")
        return self


class ManifestTotals(StrictModel):
    num_samples: Count
    num_frames: Count
    duration_s: Annotated[float, Field(ge=0)]
    num_bytes: Count


class ShardManifest(StrictModel):
    """`manifest.json`, replaced last; names every shard of one tier."""

    schema_version: Literal[1] = SCHEMA_VERSION
    tier: TierName
    plan: str  # hash of the plan; part of every shard's name
    captioner: str
    buckets: tuple[Bucket, ...]
    shards: tuple[ShardEntry, ...]
    totals: ManifestTotals
    funnel: Funnel
    config_fingerprint: str
    weights: dict[str, str]  # model_id -> sha256 of the file
    tables: dict[str, str]  # step -> fingerprint of the table that was read


class IndexRow(NamedTuple):
    """One sample of a shard: offsets and sizes are of the members' content in the tar."""

    key: str
    media_offset: int
    media_size: int
    json_offset: int
    json_size: int
    num_frames: int
    height: int
    width: int
    fps: float | None
    bucket: str
    weight: float


INDEX_COLUMNS = IndexRow._fields
