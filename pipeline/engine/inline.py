"""Runs a pass in this process: the same rules as on a cluster, without one.

A worker that takes the process down takes the run with it (the next one goes on from the finished
parts). A time limit interrupts Python code in the main thread; native code that never returns
cannot be interrupted here, only by the Ray engine, which ends its process.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from pipeline.engine.config import EngineConfig
from pipeline.engine.describe import describe_exception
from pipeline.engine.errors import HaltError
from pipeline.engine.ledger import Ledger, Unit
from pipeline.engine.progress import Progress
from pipeline.engine.work import Pass, PassReport, Worker
from pipeline.storage import StorageError
from schemas.status import Failure

logger = logging.getLogger(__name__)


class _OutOfTimeError(BaseException):
    """Not an Exception, so that no worker takes it for one of its own."""


class InlineEngine:
    """One worker of each kind, one part at a time."""

    def __init__(self, config: EngineConfig, progress: Progress) -> None:
        self._config = config
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.close()

    def plan(self, pass_: Pass) -> tuple[int, ...]:
        """See Engine.plan."""
        return tuple(1 for _ in pass_.workers)

    def run(self, pass_: Pass) -> PassReport:
        """See Engine.run."""
        ledger = Ledger(pass_, self._config)
        self._progress.begin(pass_.name, ledger)
        workers: list[Worker] = []
        while (unit := ledger.take()) is not None:
            workers = workers or _start(pass_)
            if not self._try(pass_, ledger, unit, workers):
                workers = []
            self._progress.tick(num_in_flight=0)
        report = ledger.finish(self.plan(pass_))
        self._progress.end()
        return report

    def _try(self, pass_: Pass, ledger: Ledger, unit: Unit, workers: list[Worker]) -> bool:
        """False: the workers were interrupted and cannot be trusted any more."""
        limit_s = len(unit.part.items) * pass_.item_timeout_s
        payload: Any = unit.part
        try:
            for worker in workers:
                with _time_limit(limit_s):
                    payload = worker.process(payload)
        except (StorageError, HaltError):
            raise  # not the item's fault
        except _OutOfTimeError:
            failure = Failure(error_class="timeout", error=f"no result within {limit_s:g} s")
            ledger.struck(unit, failure)
            return False
        except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a strike
            raised = describe_exception(error)
            logger.warning("pass %s, part %s: %s", pass_.name, unit.part.key, raised.error)
            ledger.raised(unit, raised)
            return True
        ledger.succeeded(unit, payload)
        return True


def _start(pass_: Pass) -> list[Worker]:
    workers = [spec.factory() for spec in pass_.workers]
    for worker in workers:
        worker.setup()
    return workers


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _OutOfTimeError

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
