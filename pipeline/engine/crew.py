"""The actors of one pass: started, watched, replaced, and ended when the pass is over."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import GetTimeoutError, RayError

from pipeline.engine.config import EngineConfig
from pipeline.engine.errors import EngineError, HaltError, WorkerBugError
from pipeline.engine.host import Answer, Hello, WorkerHost
from pipeline.engine.ledger import Unit
from pipeline.engine.work import WorkerSpec

logger = logging.getLogger(__name__)

_MAX_FAILED_STARTS = 3
_ROOM_GRACE_S = 10.0  # a pool without any worker waits this long for room before others give way
_END_TIMEOUT_S = 10.0
_FETCH_TIMEOUT_S = 60.0  # to fetch a small answer that is ready


@dataclass(slots=True, eq=False)
class Slot:
    """A place in a pool and the actor that holds it now."""

    stage: int
    actor: Any = None
    state: Literal["placing", "loading", "idle", "busy"] = "placing"
    ref: Any = None  # what it is to answer next
    payload_ref: Any = None
    unit: Unit | None = None
    since_s: float = 0.0  # start of this state
    deadline_s: float = 0.0
    hello: Hello | None = None
    rss_bytes: int = 0  # after setup
    num_failed_starts: int = 0


@dataclass(slots=True)
class Crew:
    """Pools of one pass, one per worker of the chain."""

    specs: Sequence[WorkerSpec]
    config: EngineConfig
    slots: list[Slot] = field(default_factory=list)

    def hire(self, counts: Sequence[int]) -> None:
        for stage, count in enumerate(counts):
            for _ in range(count):
                slot = Slot(stage)
                self.slots.append(slot)
                self.start(slot)

    def start(self, slot: Slot) -> None:
        """A fresh actor into the slot. It reports where it runs first, then loads its weights."""
        resources = self.specs[slot.stage].resources
        actor_class = ray.remote(WorkerHost).options(
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            memory=resources.memory_bytes or None,
            max_restarts=0,  # replaced from here, so that a strike can be counted
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env=_threads(resources.num_cpus),
        )
        slot.actor = actor_class.remote(self.specs[slot.stage].factory)
        slot.unit, slot.hello, slot.payload_ref = None, None, None
        self._expect(slot, "placing", slot.actor.hello.remote(), self.config.setup_timeout_s)

    def hand(self, slot: Slot, unit: Unit, payload: Any, limit_s: float) -> None:
        """Give an idle slot one unit; it gets the next when this one is answered."""
        method = slot.actor.process.options(num_returns=2)
        ref, slot.payload_ref = method.remote(payload)
        slot.unit = unit
        self._expect(slot, "busy", ref, limit_s)

    def rest(self, slot: Slot) -> None:
        slot.unit, slot.ref, slot.payload_ref = None, None, None
        slot.state, slot.since_s = "idle", time.monotonic()

    def greet(self, slot: Slot) -> None:
        """The next step of a slot that starts and has answered. Raises RayError or HaltError."""
        if slot.state == "placing":
            slot.hello = fetch(slot.ref)
            self._expect(slot, "loading", slot.actor.setup.remote(), self.config.setup_timeout_s)
            return
        answer: Answer = fetch(slot.ref)
        if answer.halt is not None:
            raise HaltError(answer.halt)
        if answer.storage_error is not None:
            self.fail_start(slot, answer.storage_error)
        elif answer.raised is not None:
            self.fail_start(slot, f"{answer.raised.error}\n{answer.raised.trace}")
        else:
            slot.num_failed_starts = 0
            slot.rss_bytes = answer.rss_bytes
            self.rest(slot)

    def fail_start(self, slot: Slot, why: str, *, for_good: bool = False) -> None:
        """Try again a few times, then give the slot up. Raises WorkerBugError for the last one."""
        self.end(slot)
        slot.num_failed_starts += 1
        logger.warning("worker %d does not start: %s", slot.stage, why.splitlines()[0])
        if not for_good and slot.num_failed_starts < _MAX_FAILED_STARTS:
            self.start(slot)
            return
        self.slots.remove(slot)
        if not any(other.stage == slot.stage for other in self.slots):
            raise WorkerBugError(f"no worker of kind {slot.stage} starts: {why}".rstrip())

    def replace(self, slot: Slot) -> None:
        self.end(slot)
        self.start(slot)

    def end(self, slot: Slot) -> None:
        """End the actor's process; a dead one is fine. A busy one has ended on return.

        Otherwise it might still write its part while the items go to other workers.
        """
        if slot.actor is None:
            return
        ray.kill(slot.actor, no_restart=True)
        if slot.state == "busy":
            ray.wait([slot.ref], timeout=_END_TIMEOUT_S, fetch_local=False)
        slot.actor = None

    def close(self) -> None:
        """End all. Their CPUs and GPUs are free for the next pass."""
        for slot in self.slots:
            self.end(slot)
        self.slots.clear()

    def idle(self, stage: int) -> Iterator[Slot]:
        return (slot for slot in self.slots if slot.stage == stage and slot.state == "idle")

    def awaited(self) -> list[Slot]:
        """Slots that owe an answer."""
        return [slot for slot in self.slots if slot.state != "idle"]

    def starved(self) -> Slot | None:
        """A slot to give up, so that a pool without any worker finds room for one; or None.

        After the loss of a node the other pools may hold all that is left.
        """
        now = time.monotonic()
        for slot in self.slots:
            alone = all(s.state == "placing" for s in self.slots if s.stage == slot.stage)
            if slot.state == "placing" and alone and now - slot.since_s > _ROOM_GRACE_S:
                return self._spare(slot.stage)
        return None

    def is_lost(self, slot: Slot) -> bool:
        """Whether the node of the slot's actor is gone."""
        alive = {node["NodeID"] for node in living_nodes()}
        return slot.hello is not None and slot.hello.node_id not in alive

    def _spare(self, stage: int) -> Slot | None:
        others = [s for s in self.slots if s.stage != stage and s.state != "placing"]
        counts = {s.stage: sum(o.stage == s.stage for o in others) for s in others}
        rich = [s for s in others if counts[s.stage] > 1]
        return max(rich, key=lambda s: (counts[s.stage], s.state == "idle"), default=None)

    def _expect(
        self, slot: Slot, state: Literal["placing", "loading", "busy"], ref: Any, limit_s: float
    ) -> None:
        slot.state, slot.ref, slot.since_s = state, ref, time.monotonic()
        slot.deadline_s = slot.since_s + limit_s


def living_nodes() -> list[dict[str, Any]]:
    """Ray's own records of the nodes that live."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def fetch(ref: Any) -> Any:
    """The value of a ref that `ray.wait` has called ready. Raises RayError; never waits long."""
    try:
        return ray.get(ref, timeout=_FETCH_TIMEOUT_S)
    except GetTimeoutError as error:
        raise RayError(f"a ready answer did not arrive in {_FETCH_TIMEOUT_S:g} s") from error


def _threads(num_cpus: float) -> dict[str, Any]:
    """One thread, as the whole job has it, unless the worker reserves more CPUs."""
    if num_cpus < 2:
        return {}
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {"env_vars": dict.fromkeys(names, str(int(num_cpus)))}


def raise_if_ray_is_gone(error: RayError) -> None:
    """Errors of Ray itself end the run; errors of one actor or object do not."""
    if isinstance(error, ray.exceptions.LocalRayletDiedError | ray.exceptions.OutOfDiskError):
        raise EngineError(f"Ray failed on the driver's node: {error}") from error
