"""What a loader asks a reader for, and what it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from schemas.caption import StructuredCaption
from schemas.tier import Bucket


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One place in a batch. `draw_key` names its random numbers, `index` is its corpus row."""

    index: int
    draw_key: str
    step: int
    shape: Bucket


@dataclass(frozen=True, slots=True)
class ReadSample:
    """What a reader says about a sample besides the tensors that it filled."""

    key: str
    caption: StructuredCaption
    fps: float  # of the frames in the batch; 0 for images
    ragged: Mapping[str, Tensor] = field(default_factory=dict)  # sizes differ within a batch
    text: str | None = None  # that the ragged states are of; None: to be made from the caption


class SampleReader(Protocol):
    """Reads one kind of shard: pixels, or latents. Called from many threads at once."""

    def empty(self, shape: Bucket, num: int) -> dict[str, Tensor]:
        """Tensors for a batch, the batch axis first."""
        ...

    def read(self, request: SampleRequest, into: Mapping[str, Tensor]) -> ReadSample:
        """Fill one sample's part of the tensors.

        Raises:
            SampleError: this sample is bad; another takes its place.
            DataError: the shard is bad or gone; the run stops.

        """
        ...
