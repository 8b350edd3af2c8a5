"""Settings of a video-text training run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel

Trunk = Literal["efficientnet_lite0", "vit"]
TextKind = Literal["minilm", "byte"]
Loss = Literal["infonce", "sigmoid"]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class VideoClipConfig(StrictModel):
    """Everything that decides what a run computes.

    `trunk`: the packaged ImageNet network, or a small transformer over patches from scratch.
    `text`: the packaged MiniLM, or bytes from scratch. `train_trunk` and `train_text` let the
    packaged networks learn as well; what starts from scratch always does.
    """

    trunk: Trunk = "efficientnet_lite0"
    text: TextKind = "minilm"
    train_trunk: bool = False
    train_text: bool = False
    num_frames: Positive = 8
    side: Annotated[int, Field(ge=32, multiple_of=16)] = 224
    width: Annotated[int, Field(ge=16, multiple_of=16)] = 256  # of the common space
    temporal_layers: Annotated[int, Field(ge=0)] = 2
    scratch_width: Annotated[int, Field(ge=16, multiple_of=16)] = 192
    scratch_layers: Positive = 4
    head_width: Annotated[int, Field(ge=8)] = 16
    max_bytes: Positive = 256  # of a text, for the byte encoder
    loss: Loss = "infonce"
    num_steps: Positive = 10_000
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Rate = 3e-4
    packaged_rate: Rate = 1e-5  # of packaged networks that learn
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    clip_norm: Rate = 1.0
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the sources
    seed: int = 0

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> Self:
        for name in ("width", "scratch_width"):
            if getattr(self, name) % self.head_width:
                raise ValueError(f"{name} {getattr(self, name)} is no multiple of head_width")
        return self
