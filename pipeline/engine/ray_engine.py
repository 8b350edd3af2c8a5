"""Runs passes on Ray actors: fixed pools per pass, chained by object refs, one unit per actor.

An actor gets its next unit when it has answered the last. So a death or a timeout points at one
unit, time limits start when the work does, and what waits is bounded by the window. The round trip
costs about a millisecond; units last seconds.
"""

import logging
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import (
    ActorDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)

from pipeline.engine.cluster import Cluster
from pipeline.engine.config import EngineConfig
from pipeline.engine.crew import Crew, Slot, fetch, raise_if_ray_is_gone
from pipeline.engine.describe import describe_exception
from pipeline.engine.errors import HaltError
from pipeline.engine.host import Answer
from pipeline.engine.ledger import Ledger, Raised, Unit
from pipeline.engine.metrics import Metrics
from pipeline.engine.progress import Progress
from pipeline.engine.sizing import plan_pools
from pipeline.engine.work import Pass, PassReport
from pipeline.storage import StorageError
from schemas.status import Failure

logger = logging.getLogger(__name__)

_TICK_S = 0.5  # how often limits are looked at when nothing answers


class RayEngine:
    """Connects on entering the context, runs passes, leaves on exit."""

    def __init__(self, config: EngineConfig, progress: Progress) -> None:
        self._config = config
        self._progress = progress
        self._cluster = Cluster(config)
        self._metrics: Metrics | None = None

    def __enter__(self) -> Self:
        self._cluster.connect()
        self._metrics = Metrics()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.close()
        self._cluster.close()

    def plan(self, pass_: Pass) -> tuple[int, ...]:
        """See Engine.plan."""
        return plan_pools(
            pass_.name,
            pass_.workers,
            self._cluster.nodes(),
            num_parts=len(pass_.parts),
            max_workers=self._config.num_workers,
        )

    def run(self, pass_: Pass) -> PassReport:
        """See Engine.run."""
        assert self._metrics is not None, "run outside the engine's context"
        ledger = Ledger(pass_, self._config)
        counts = self.plan(pass_)
        self._progress.begin(pass_.name, ledger)
        if pass_.parts:
            crew = Crew(pass_.workers, self._config)
            try:
                crew.hire(counts)
                _Shift(pass_, ledger, crew, self._config).work(self._progress, self._metrics)
            finally:
                crew.close()
        report = ledger.finish(counts)
        self._metrics.update(pass_.name, ledger, 0)
        self._progress.end()
        return report


class _Shift:
    """The loop of one pass."""

    def __init__(self, pass_: Pass, ledger: Ledger, crew: Crew, config: EngineConfig) -> None:
        self._pass = pass_
        self._ledger = ledger
        self._crew = crew
        self._config = config
        # Between two workers of the chain: units with the ref of what the one before returned.
        self._queues: list[deque[tuple[Unit, Any]]] = [deque() for _ in pass_.workers]

    def work(self, progress: Progress, metrics: Metrics) -> None:
        while self._hand_out() or self._ledger.num_waiting:
            for slot in self._answered():
                self._take_in(slot)
            self._enforce_limits()
            progress.tick(num_in_flight=self._num_in_flight())
            metrics.update(self._pass.name, self._ledger, self._num_in_flight())

    def _num_in_flight(self) -> int:
        return sum(len(queue) for queue in self._queues) + sum(
            slot.unit is not None for slot in self._crew.slots
        )

    def _hand_out(self) -> int:
        """Give idle workers work, the end of the chain first. How many units are on their way."""
        num_in_flight = self._num_in_flight()
        first = sum(slot.stage == 0 for slot in self._crew.slots)
        window = len(self._crew.slots) + first  # every worker busy, and a spare for each first one
        for stage in reversed(range(len(self._queues))):
            for slot in self._crew.idle(stage):
                if stage > 0:
                    if not self._queues[stage]:
                        break
                    unit, payload = self._queues[stage].popleft()
                else:
                    fresh = self._ledger.take() if num_in_flight < window else None
                    if fresh is None:
                        break
                    unit, payload = fresh, fresh.part
                    num_in_flight += 1
                self._crew.hand(slot, unit, payload, _time_limit_s(self._pass, unit))
        return num_in_flight

    def _answered(self) -> list[Slot]:
        """Slots whose answer is ready; waits a moment for the first."""
        slots = {slot.ref: slot for slot in self._crew.awaited()}
        if not slots:
            return []
        ready, _ = ray.wait(list(slots), num_returns=1, timeout=_TICK_S, fetch_local=False)
        if ready:
            ready, _ = ray.wait(list(slots), num_returns=len(slots), timeout=0, fetch_local=False)
        return [slots[ref] for ref in ready]

    def _take_in(self, slot: Slot) -> None:
        try:
            if slot.unit is None:
                self._crew.greet(slot)
                return
            answer: Answer = fetch(slot.ref)
        except RayError as error:
            raise_if_ray_is_gone(error)
            self._take_in_error(slot, error)
            return
        unit, payload = slot.unit, slot.payload_ref
        if answer.rss_bytes - slot.rss_bytes > self._config.max_worker_growth_bytes:
            logger.info("worker %d grew to %d bytes: replaced", slot.stage, answer.rss_bytes)
            self._crew.replace(slot)
        else:
            self._crew.rest(slot)
        if answer.storage_error is not None:
            raise StorageError(answer.storage_error)
        if answer.halt is not None:
            raise HaltError(answer.halt)
        if answer.raised is not None:
            self._log(unit, answer.raised)
            self._ledger.raised(unit, answer.raised)
        elif answer.report is not None:
            self._ledger.succeeded(unit, answer.report)
        else:
            self._queues[slot.stage + 1].append((unit, payload))

    def _take_in_error(self, slot: Slot, error: RayError) -> None:
        """The actor or an object went, or the answer could not be sent."""
        unit = slot.unit
        if unit is None:
            self._crew.fail_start(slot, f"its process ended: {_one_line(error)}")
            return
        if isinstance(error, RayTaskError) and not isinstance(error, RayActorError):
            self._crew.rest(slot)
            raised = describe_exception(error.cause or error)
            self._log(unit, raised)
            self._ledger.raised(unit, raised)
            return
        innocent = not isinstance(error, ActorDiedError) or self._crew.is_lost(slot)
        if isinstance(error, ObjectLostError | TaskCancelledError):
            self._crew.rest(slot)
        else:
            self._crew.replace(slot)
        if innocent:
            logger.warning("part %s lost: %s", unit.part.key, _one_line(error))
            self._ledger.lost(unit)
        else:
            logger.warning("part %s ended its worker: %s", unit.part.key, _one_line(error))
            failure = Failure(error_class="worker_died", error=_one_line(error))
            self._ledger.struck(unit, failure)

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        for slot in [slot for slot in self._crew.awaited() if now > slot.deadline_s]:
            unit, waited_s = slot.unit, now - slot.since_s
            if unit is None:
                what = "place for it was found" if slot.state == "placing" else "its setup ended"
                why = f"{waited_s:.0f} s went by before {what}"
                self._crew.fail_start(slot, why, for_good=True)
                continue
            self._crew.replace(slot)
            logger.warning("part %s gave no result in %.0f s", unit.part.key, waited_s)
            error = f"no result within {_time_limit_s(self._pass, unit):g} s"
            self._ledger.struck(unit, Failure(error_class="timeout", error=error))
        if (spare := self._crew.starved()) is not None:
            logger.warning("worker %d gives its place to another kind", spare.stage)
            unit = spare.unit
            self._crew.end(spare)
            self._crew.slots.remove(spare)
            if unit is not None:
                self._ledger.lost(unit)

    def _log(self, unit: Unit, raised: Raised) -> None:
        logger.warning("pass %s, part %s: %s", self._pass.name, unit.part.key, raised.error)


def _time_limit_s(pass_: Pass, unit: Unit) -> float:
    """Seconds that one worker may spend on a unit."""
    return len(unit.part.items) * pass_.item_timeout_s


def _one_line(error: BaseException) -> str:
    """Ray's messages have many lines; the last one says how the process ended, then guesses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = lines[-1] if lines else type(error).__name__
    return detail.split(" Some common causes")[0]
