"""Knobs of the embedding pass."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel


class EmbedConfig(StrictModel):
    """`model`: a shipped name, or `path:FILE` for any exported ONNX video encoder.

    `num_frames` is used when the model takes any number; else the model's own number holds.
    """

    model: str = "efficientnet_lite0"
    provider: Literal["cpu", "cuda"] = "cpu"
    num_frames: Annotated[int, Field(ge=1, le=64)] = 8
