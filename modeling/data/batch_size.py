"""How many samples a step takes of each bucket: one number for all, or equal cost per step."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from modeling.data.errors import DataError
from schemas.base import StrictModel
from schemas.tier import Bucket

_LATENT_STRIDE_THW = (4, 16, 16)  # 4x8x8 of the VAE, 2x2 of the patches


class PlanConfig(StrictModel):
    """How epochs are cut into steps.

    One of `global_batch` and `tokens_per_step` is set. With the second the batch of a bucket whose
    samples have S tokens is the largest with B * (S + attention_cost * S^2) at most
    tokens_per_step, so that all steps cost about the same.
    """

    seed: int = 0
    global_batch: Annotated[int, Field(ge=1)] | None = None
    tokens_per_step: Annotated[int, Field(ge=1)] | None = None
    # Attention's share: 4 d S^2 against 24 d^2 S of the rest, 1 / (6 d) at width d = 1536.
    attention_cost: Annotated[float, Field(ge=0)] = 1 / (6 * 1536)
    batch_multiple: Annotated[int, Field(ge=1)] = 1  # of every batch: ranks x accumulation
    use_balance_weights: bool = True
    image_share: Annotated[float, Field(ge=0, le=1)] | None = None  # of samples; None: as they are
    small_buckets: Literal["shrink", "repeat", "drop", "error"] = "shrink"


def tokens(bucket: Bucket) -> int:
    """DiT tokens of one sample: 4 frames (after the first) x 16 x 16 pixels each."""
    frames, height, width = _LATENT_STRIDE_THW
    num_latents = 1 + (bucket.num_frames - 1) // frames
    return num_latents * (bucket.height // height) * (bucket.width // width)


@dataclass(frozen=True, slots=True)
class FittedBatch:
    """The batch of a bucket, and how many samples a pass over the bucket holds."""

    batch: int
    num_points: int


def fit_batch(shape: Bucket, config: PlanConfig, num_points: int) -> FittedBatch | None:
    """None leaves the bucket out. Raises DataError where the config asks for it."""
    batch = _wanted_batch(shape, config)
    if num_points >= batch:
        return FittedBatch(batch, num_points)
    if config.small_buckets == "drop":
        return None
    if config.small_buckets == "repeat":
        return FittedBatch(batch, batch)
    shrunk = num_points // config.batch_multiple * config.batch_multiple
    if config.small_buckets == "shrink" and shrunk:
        return FittedBatch(shrunk, num_points)
    raise DataError(
        f"bucket {shape.name}",
        f"{num_points} samples do not fill a batch of {batch} "
        f"(batch_multiple {config.batch_multiple})",
        "lower the batch, or set small_buckets to repeat or drop",
    )


def _wanted_batch(shape: Bucket, config: PlanConfig) -> int:
    multiple = config.batch_multiple
    if (config.global_batch is None) == (config.tokens_per_step is None):
        raise DataError(
            "plan",
            f"global_batch is {config.global_batch}, tokens_per_step {config.tokens_per_step}",
            "set exactly one of the two",
        )
    if config.global_batch is not None:
        if config.global_batch % multiple:
            problem = f"{config.global_batch} is not a multiple of batch_multiple {multiple}"
            raise DataError("global_batch", problem, f"choose a multiple of {multiple}")
        return config.global_batch
    assert config.tokens_per_step is not None
    num_tokens = tokens(shape)
    cost = num_tokens + config.attention_cost * num_tokens**2
    return max(1, int(config.tokens_per_step / cost) // multiple) * multiple
