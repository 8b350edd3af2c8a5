"""What only the whole pool can tell about a clip: its duplicates and its concept."""

from typing import Annotated

from pydantic import Field

from schemas.base import StrictModel


class CorpusRow(StrictModel):
    """One row per embedded clip. `duplicate_of` names the clip that was kept instead."""

    clip_id: str
    duplicate_of: str | None = None
    similarity: Annotated[float, Field(ge=-1, le=1.001)] | None = None  # cosine to that clip
    cluster: Annotated[int, Field(ge=0)] | None = None  # concept; None for duplicates
    cluster_distance: Annotated[float, Field(ge=0)] | None = None  # 1 - cosine to the centroid
    weight: Annotated[float, Field(ge=0)] | None = None  # balance weight, mean 1 over kept clips
