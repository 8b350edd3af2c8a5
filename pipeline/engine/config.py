"""Limits of the engine. None of them changes a result, so none is part of a fingerprint."""

from typing import Annotated

from pydantic import Field

from schemas.base import StrictModel

Positive = Annotated[float, Field(gt=0)]


class EngineConfig(StrictModel):
    """`address`: "local" starts a Ray of our own; "auto" or host:port joins a running one.

    Inside `ray job submit` the job's own cluster is joined whatever `address` says.
    """

    address: str = "local"
    num_workers: Annotated[int, Field(ge=1)] | None = None  # caps pools that name no size
    setup_timeout_s: Positive = 300.0  # to schedule an actor and load its weights
    progress_interval_s: Positive = 5.0
    max_startup_errors: Annotated[int, Field(ge=1)] = 8  # same exception, before any success
    max_losses: Annotated[int, Field(ge=1)] = 8  # of a part with its node; then it is a strike
    max_worker_growth_bytes: Annotated[int, Field(gt=0)] = 2 << 30  # since setup; then replaced
    object_store_bytes: Annotated[int, Field(ge=80 << 20)] = 500_000_000  # of a Ray of our own
