"""Settings of the ingest step."""

from typing import Annotated

from pydantic import Field

from pipeline.media.config import MediaLimits
from schemas.base import StrictModel


class IngestConfig(StrictModel):
    """`sources_per_part` is how much a kill can cost; it changes no result."""

    sources_per_part: Annotated[int, Field(gt=0)] = 32
    limits: MediaLimits = MediaLimits()
