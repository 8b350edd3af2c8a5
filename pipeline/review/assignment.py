"""Who looks at what: a clip for each reviewer, some for two, none for two at the same time."""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.review.config import ReviewConfig

_LEASE_S = 600.0  # a clip on somebody's screen is kept from others for so long
_SHARE_STEPS = 1 << 16


class Assignment:
    """Hands out clips. Leases live in this process; another server may hand out the same clip."""

    def __init__(
        self, config: ReviewConfig, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._clock_s = clock_s
        self._leases: dict[tuple[str, str], float] = {}  # (clip, reviewer) -> end

    def wanted(self, clip_id: str) -> int:
        """How many reviewers shall judge the clip. Decided by the clip alone."""
        lot = int(hashlib.sha256(f"overlap:{clip_id}".encode()).hexdigest()[:4], 16)
        return self._config.num_overlap if lot < self._config.overlap * _SHARE_STEPS else 1

    def next(
        self,
        reviewer: str,
        ordered: Sequence[str],
        judged_by: Mapping[str, Collection[str]],
        count: int,
    ) -> list[str]:
        """Up to `count` clips for the reviewer, and a lease on each. A reload gets the same."""
        now = self._clock_s()
        self._leases = {key: end for key, end in self._leases.items() if end > now}
        holders: dict[str, set[str]] = {}
        for clip_id, who in self._leases:
            holders.setdefault(clip_id, set()).add(who)
        found: list[str] = []
        for clip_id in ordered:
            busy = {*judged_by.get(clip_id, ()), *holders.get(clip_id, ())} - {reviewer}
            if reviewer in judged_by.get(clip_id, ()) or len(busy) >= self.wanted(clip_id):
                continue
            found.append(clip_id)
            if len(found) == count:
                break
        for clip_id in found:
            self._leases[clip_id, reviewer] = now + _LEASE_S
        return found

    def release(self, clip_id: str, reviewer: str) -> None:
        self._leases.pop((clip_id, reviewer), None)
