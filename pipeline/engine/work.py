"""What the engine runs: passes made of parts, worked on by chains of workers. No Ray in here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.stage import Resources
from schemas.status import Failure


@dataclass(frozen=True, slots=True)
class Part:
    """A unit of work. Small: it carries paths, spans and ids, never media bytes."""

    key: str
    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PartReport:
    """What became of a part's items; `reasons` counts failed rows by error_class."""

    num_ok: int
    num_failed: int
    seconds: float
    reasons: Mapping[str, int] = field(default_factory=dict)


class Worker(Protocol):
    """Lives in one actor. The last worker of a chain writes tables and returns a PartReport."""

    def setup(self) -> None:
        """Load weights, open stores. Once per actor."""

    def process(self, payload: Any) -> Any:
        """The first worker gets a Part, each next one what the one before it returned.

        A failure of the data is a row, written by the worker. An exception is a bug or a lost
        worker: the engine retries the part, and then its items one by one.
        """


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How to make a worker in an actor: a picklable factory with small arguments."""

    factory: Callable[[], Worker]
    resources: Resources
    num_workers: int | None = None  # None: as many as the cluster's share allows


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the walk. `record_failure` writes the failed row of a part of one item."""

    name: str
    parts: Sequence[Part]
    workers: tuple[WorkerSpec, ...]
    record_failure: Callable[[Part, Failure], PartReport]
    item_timeout_s: float
