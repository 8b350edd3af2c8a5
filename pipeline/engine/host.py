"""What lives in an actor: one worker, and answers that say how it fared as plain values."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.engine.describe import describe_exception
from pipeline.engine.errors import HaltError
from pipeline.engine.ledger import Raised
from pipeline.engine.progress import rss_bytes
from pipeline.engine.work import PartReport, Worker
from pipeline.storage import StorageError


@dataclass(frozen=True, slots=True)
class Hello:
    """The actor runs: where, and as which process."""

    node_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Small: the payload for the next worker travels as an object of its own, beside this."""

    rss_bytes: int
    report: PartReport | None = None  # from the last worker of a chain
    raised: Raised | None = None
    storage_error: str | None = None
    halt: str | None = None


class WorkerHost:
    """Catches what a worker raises, so that only a lost process is an error of the actor."""

    def __init__(self, factory: Callable[[], Worker]) -> None:
        self._factory = factory
        self._worker: Worker | None = None

    def hello(self) -> Hello:
        import ray

        return Hello(node_id=ray.get_runtime_context().get_node_id(), pid=os.getpid())

    def setup(self) -> Answer:
        def make() -> None:
            worker = self._factory()
            worker.setup()
            self._worker = worker

        return _answer(make)[0]

    def process(self, payload: Any) -> tuple[Answer, Any]:
        worker = self._worker
        assert worker is not None, "process before setup"
        return _answer(lambda: worker.process(payload))


def _answer(work: Callable[[], Any]) -> tuple[Answer, Any]:
    try:
        result = work()
    except StorageError as error:
        return Answer(rss_bytes(), storage_error=str(error)), None
    except HaltError as error:
        return Answer(rss_bytes(), halt=str(error)), None
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a strike
        return Answer(rss_bytes(), raised=describe_exception(error)), None
    if isinstance(result, PartReport):
        return Answer(rss_bytes(), report=result), None
    return Answer(rss_bytes()), result
