"""Who is to be tried again, and who has failed: the same rules for every engine.

A part whose worker dies or raises is tried again as it is; the second time it is split into parts
of one item. A part that times out is split at once, for its limit grows with its items. An item
has failed at its second strike. A part lost with its node is innocent and is not struck.

Items that raised are recorded at the end only: when every item raises the same exception, the
fault is in the code, and rows would hide it from the run that comes after the repair.
"""

import hashlib
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from pipeline.engine.config import EngineConfig
from pipeline.engine.errors import WorkerBugError
from pipeline.engine.work import Part, PartReport, Pass, PassReport
from schemas.status import Failure

MAX_STRIKES = 2


@dataclass(slots=True)
class Unit:
    """A part on its way, with what it went through."""

    part: Part
    num_strikes: int = 0
    num_losses: int = 0


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception of a worker: its class, its line and where it came from."""

    signature: str  # class and place: equal for the same bug in different items
    error: str
    trace: str = field(compare=False, default="")


def split_part(part: Part) -> list[Part]:
    """Parts of one item each; their keys follow from the part's key and the item's place."""
    return [
        Part(key=hashlib.sha256(f"{part.key}:{place}".encode()).hexdigest()[:16], items=(item,))
        for place, item in enumerate(part.items)
    ]


class Ledger:
    """The books of one pass. Every item ends in exactly one report or one recorded failure."""

    def __init__(self, pass_: Pass, config: EngineConfig) -> None:
        self._pass = pass_
        self._config = config
        self._waiting = deque(Unit(part) for part in pass_.parts)
        self._held: list[tuple[Part, Raised]] = []
        self._raised: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._started = time.monotonic()
        self._succeeded = False
        self.num_items = sum(len(part.items) for part in pass_.parts)
        self.num_done = 0
        self.num_ok = 0
        self.num_failed = 0
        self.num_retries = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def take(self) -> Unit | None:
        """The next unit to try, None when none waits."""
        return self._waiting.popleft() if self._waiting else None

    def succeeded(self, unit: Unit, report: PartReport) -> None:
        self._succeeded = True
        self._count(unit.part, report)

    def lost(self, unit: Unit) -> None:
        """The node went, or an object that the unit needed: not the unit's fault."""
        unit.num_losses += 1
        if unit.num_losses > self._config.max_losses:
            error = f"lost {unit.num_losses} times with its node"
            self.struck(unit, Failure(error_class="worker_died", error=error))
        elif not self._is_on_disk(unit):
            self.num_retries += 1
            self._waiting.appendleft(unit)

    def struck(self, unit: Unit, failure: Failure) -> None:
        """The worker died on the unit or ran out of time. One item, second strike: a failed row."""
        if self._is_on_disk(unit):
            return
        unit.num_strikes += 1
        if failure.error_class == "timeout" and len(unit.part.items) > 1:
            unit.num_strikes = MAX_STRIKES
        if not self._try_again(unit):
            self._record(unit.part, failure)

    def raised(self, unit: Unit, raised: Raised) -> None:
        """The worker raised. Raises WorkerBugError when nothing but this was ever seen."""
        self._raised[raised.signature] += 1
        num_alike = self._raised[raised.signature]
        if not self._succeeded and num_alike >= self._config.max_startup_errors:
            raise self._bug(raised)
        unit.num_strikes += 1
        if not self._try_again(unit):
            self._held.append((unit.part, raised))
            self.num_done += len(unit.part.items)
            self.num_failed += len(unit.part.items)

    def finish(self, num_workers: tuple[int, ...] = ()) -> PassReport:
        """Record what raised to the end, and sum up. Raises WorkerBugError: see `raised`."""
        if self._held and not self._succeeded and len(self._held) == self.num_items:
            raise self._bug(self._held[0][1])
        for part, raised in self._held:
            self.num_done -= len(part.items)
            self.num_failed -= len(part.items)
            self._record(part, Failure(error_class="worker_error", error=raised.error))
        self._held.clear()
        return PassReport(
            name=self._pass.name,
            num_ok=self.num_ok,
            num_failed=self.num_failed,
            seconds=self.seconds,
            reasons=dict(sorted(self._reasons.items())),
            num_retries=self.num_retries,
            num_workers=num_workers,
        )

    def _try_again(self, unit: Unit) -> bool:
        if unit.num_strikes < MAX_STRIKES:
            self._waiting.append(unit)
        elif len(unit.part.items) > 1:
            self._waiting.extend(Unit(part) for part in split_part(unit.part))
        else:
            return False
        self.num_retries += 1
        return True

    def _is_on_disk(self, unit: Unit) -> bool:
        report = self._pass.find_report(unit.part)
        if report is None:
            return False
        self.succeeded(unit, report)
        return True

    def _record(self, part: Part, failure: Failure) -> None:
        self._count(part, self._pass.record_failure(part, failure))

    def _count(self, part: Part, report: PartReport) -> None:
        self.num_done += len(part.items)
        self.num_ok += report.num_ok
        self.num_failed += report.num_failed
        self._reasons.update(report.reasons)

    def _bug(self, raised: Raised) -> WorkerBugError:
        return WorkerBugError(
            f"pass {self._pass.name}: every item raises {raised.error}; nothing was recorded for "
            f"them, repair and run again\n{raised.trace}".rstrip()
        )
