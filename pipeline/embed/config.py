"""Knobs of the embedding pass."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel


class EmbedConfig(StrictModel):
    """`model`: a shipped name, or `path:FILE` for any exported ONNX video encoder.

    A model of two outputs, `copy` and `semantic`, serves near-duplicates with the one and concepts
    with the other; a model of one output, `embedding`, serves both with it.

    `num_frames` is used when the model takes any number; else the model's own number holds.
    """

    model: str = "clip_embedding"
    provider: Literal["cpu", "cuda"] = "cpu"
    num_frames: Annotated[int, Field(ge=1, le=64)] = 8
