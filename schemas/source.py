"""What is known about one source: a file or object of the pool, before any frame is decoded."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel
from schemas.status import StatusRow

MediaKind = Literal["video", "image"]


class Provenance(StrictModel):
    """What an input list says about a source; carried unchanged into the shard samples."""

    licence: str | None = None
    origin_url: str | None = None
    tags: tuple[str, ...] = ()


class Probe(StrictModel):
    """Container and stream facts. Sizes are in displayed pixels: after rotation, before SAR."""

    media_kind: MediaKind
    container: str
    codec: str
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    pix_fmt: str | None = None
    fps: Annotated[float, Field(gt=0)] | None = None  # average; None for images
    is_vfr: bool = False
    rotation_deg: Literal[0, 90, 180, 270] = 0  # clockwise turn that makes the picture upright
    sample_aspect_ratio: Annotated[float, Field(gt=0)] = 1.0
    duration_s: Annotated[float, Field(ge=0)] | None = None  # as the container states it
    num_frames: Annotated[int, Field(ge=0)] | None = None  # as the container states it
    has_audio: bool = False


class SourceRow(StatusRow):
    """One row of the `sources` table, for every entry of the pool that bears a media suffix."""

    source_uri: str  # percent-encoded file URI, or URL
    listing_id: str  # changes when the entry's size or modification mark changes
    num_bytes: Annotated[int, Field(ge=0)] | None = None
    sha256: str | None = None  # of the content; None where it could not be read
    duplicate_of: str | None = None  # an exact duplicate is ok and names the first URI
    probe: Probe | None = None
    provenance: Provenance = Provenance()
