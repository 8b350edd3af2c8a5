"""A step's samples in parts that fit into memory at once.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.data.batch_size import tokens
from modeling.data.loader import Batch
from modeling.train.config import ComputeConfig
from schemas.tier import Bucket


@dataclass(frozen=True)
class Part:
    """Samples first .. first + len - 1 of the step's `global_batch`."""

    tensors: Mapping[str, Tensor]
    ragged: Mapping[str, tuple[Tensor, ...]]
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    draw_keys: tuple[str, ...]
    bucket: Bucket
    first: int
    global_batch: int

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def share(self) -> float:
        """Of the global batch."""
        return len(self) / self.global_batch


def micro_batch_size(bucket: Bucket, num_samples: int, config: ComputeConfig) -> int:
    """How many samples of a bucket are computed at once."""
    if config.micro_batch is not None:
        return min(config.micro_batch, num_samples)
    if config.micro_tokens is not None:
        return min(max(1, config.micro_tokens // tokens(bucket)), num_samples)
    return num_samples


def cut(batch: Batch, config: ComputeConfig, *, rank: int, world_size: int) -> list[Part]:
    """The parts of one rank's batch, equally large but for the last."""
    num = len(batch.keys)
    size = micro_batch_size(batch.bucket, num, config)
    parts = []
    for number in range(math.ceil(num / size)):
        chosen = slice(number * size, min((number + 1) * size, num))
        parts.append(
            Part(
                tensors={name: tensor[chosen] for name, tensor in batch.tensors.items()},
                ragged={name: tensors[chosen] for name, tensors in batch.ragged.items()},
                captions=batch.captions[chosen],
                keys=batch.keys[chosen],
                draw_keys=batch.draw_keys[chosen],
                bucket=batch.bucket,
                first=rank * num + chosen.start,
                global_batch=num * world_size,
            )
        )
    return parts


def to_video(pixels_BCTHW: Tensor, device: torch.device) -> Tensor:
    """uint8 pixels as float32 in [-1, 1] on the device, contiguous."""
    moved = pixels_BCTHW.to(device, non_blocking=True)
    return moved.contiguous().float().div_(127.5).sub_(1.0)
