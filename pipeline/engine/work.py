"""What the engine runs: passes made of parts, worked on by chains of workers. No Ray in here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

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


def unknown_part(part: Part) -> PartReport | None:
    """For passes that cannot tell whether a part is already on disk."""
    return None


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the walk. `record_failure` writes the failed row of a part of one item.

    `find_report` tells what a part that is already on disk holds, None for one that is not. A
    worker may be lost between its last write and its answer; without this its part would be split
    and its items written a second time under other keys.
    """

    name: str
    parts: Sequence[Part]
    workers: tuple[WorkerSpec, ...]
    record_failure: Callable[[Part, Failure], PartReport]
    item_timeout_s: float
    find_report: Callable[[Part], PartReport | None] = unknown_part


@dataclass(frozen=True, slots=True)
class PassReport:
    """What became of a pass; `reasons` counts failed rows by error_class."""

    name: str
    num_ok: int
    num_failed: int
    seconds: float
    reasons: Mapping[str, int]
    num_retries: int = 0  # tries beyond the first: lost workers, timeouts, exceptions
    num_workers: tuple[int, ...] = ()  # per worker of the chain


class Engine(Protocol):
    """Runs passes one after the other. Leaving the context frees what it holds."""

    def plan(self, pass_: Pass) -> tuple[int, ...]:
        """Workers of each kind that the pass would get. Raises PlanError when it does not fit."""

    def run(self, pass_: Pass) -> PassReport:
        """Work on every part. Raises EngineError, or StorageError where output fails."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
