"""What the loop needs to know of the thing that it trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from modeling.train.parts import Part
from schemas.tier import Bucket

Values = dict[str, Tensor]


class Task(Protocol):
    """A DiT or a VAE. The loop calls, per step: begin, then per part gradients, then apply."""

    num_parameters: int  # of the main network

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Everything that is trained; checkpoints hold all of it."""
        ...

    @property
    def optimizers(self) -> Sequence[Optimizer]: ...

    def gradients(self, part: Part, *, step: int, last: bool) -> Values:
        """Add the part's gradients; scalars to log, weighted so that their sum is the step's.

        `loss` is among them. No value waits for the device.
        """
        ...

    def clip(self, max_norm: float) -> Values:
        """Clip gradients; `grad_norm` and those of other networks, before clipping."""
        ...

    def apply(self, *, step: int) -> float:
        """Step the optimizers and the averages; the share of the learning rate that was used."""
        ...

    def shape(self, bucket: Bucket, step: int) -> Bucket:
        """What a step trains on of a batch of this bucket."""
        ...

    def flops(self, bucket: Bucket, *, num_samples: int, step: int) -> float:
        """Of the trained networks, by the convention of modeling/train/cost.py."""
        ...

    def averages(self) -> Mapping[str, nn.Module]:
        """Networks with averaged weights; empty without EMA."""
        ...

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the frozen networks that decide what is learned."""
        ...

    def write_final(
        self,
        folder: Path,
        part: Part,
        networks: Mapping[str, nn.Module],
        *,
        step: int,
        data_manifests: tuple[str, ...],
    ) -> None:
        """The folder that sampling and the next stage start from.

        `networks` are "model" and, with averages, "ema", both whole.
        """
        ...

    def preview(self, folder: Path, part: Part, network: nn.Module, *, step: int) -> list[Path]:
        """Sample, or reconstruct, with a whole network; the files that were written."""
        ...
