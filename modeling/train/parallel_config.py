"""How a run spreads over processes, as configured."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel

DataKind = Literal["ddp", "fsdp", "hsdp"]


class ParallelConfig(StrictModel):
    """What processes hold and share; a single process holds everything and ignores `data`.

    `data`: with "ddp" every process holds the whole network, its average and its optimizer; with
    "fsdp" each holds a part of them; with "hsdp" `shard_ranks` processes hold one copy between
    them (those of a node if it is not given), and there are as many copies as groups.
    `context_ranks` processes share each sample of a DiT; the others divide the batch.
    """

    data: DataKind = "ddp"
    shard_ranks: Annotated[int, Field(ge=2)] | None = None
    context_ranks: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _shards_are_of_copies(self) -> Self:
        if self.shard_ranks is not None and self.data != "hsdp":
            raise ValueError(
                f"shard_ranks = {self.shard_ranks} has no effect on data = {self.data!r}"
            )
        return self
