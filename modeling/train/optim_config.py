"""Optimizer and learning rate, as configured."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(StrictModel):
    """AdamW, or Muon for the matrices of the blocks and AdamW for the rest.

    The rate rises over `warmup_steps`, then follows the schedule down to `final_share` of itself at
    `schedule_steps`, and stays there. Muon's rate is scaled so that its updates are as
    large as AdamW's (arXiv:2502.16982), so the same rate serves both.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    schedule_steps: Annotated[int, Field(gt=0)] | None = None
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _length_is_given(self) -> Self:
        if self.schedule != "constant" and self.schedule_steps is None:
            raise ValueError(f"schedule = {self.schedule!r} needs schedule_steps, got None")
        idle = {"schedule_steps", "final_share"} & self.model_fields_set
        if self.schedule == "constant" and idle:
            raise ValueError(f"{sorted(idle)[0]} has no effect on schedule = 'constant'")
        if self.schedule_steps is not None and self.schedule_steps <= self.warmup_steps:
            raise ValueError(
                f"schedule_steps {self.schedule_steps} must be above "
                f"warmup_steps {self.warmup_steps}"
            )
        return self

    def rate_share(self, step: int) -> float:
        """The share of the learning rate at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule_steps is None:
            return 1.0
        length = self.schedule_steps - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / length)
        falling = (
            1 - progress if self.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
        )
        return self.final_share + (1 - self.final_share) * falling
