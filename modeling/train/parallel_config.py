"""How a run spreads over processes, as configured."""

from typing import Annotated

from pydantic import Field

from schemas.base import StrictModel


class ParallelConfig(StrictModel):
    """`context_ranks` processes share each sample of a DiT; the others divide the batch."""

    context_ranks: Annotated[int, Field(ge=1)] = 1
