"""How many people look at a clip, and what makes it approved."""

from typing import Annotated

from pydantic import Field

from schemas.base import StrictModel
from schemas.scores import Share


class ReviewConfig(StrictModel):
    """A clip is approved with `min_approvals` approvals and more approvals than rejections."""

    min_approvals: Annotated[int, Field(ge=1)] = 1
    overlap: Share = 0.2  # of the clips go to `num_overlap` reviewers, so that agreement shows
    num_overlap: Annotated[int, Field(ge=2)] = 2
