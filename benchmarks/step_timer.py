"""Times training steps on one device and keeps a record that survives a run that is cut off."""

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

PEAK_TFLOPS = 989.4  # dense bf16 of an H100 or H200 (SXM), by the vendor's data sheet


@dataclass
class Record:
    """Rows by part, written to a file after each one. `seconds` bounds the whole run."""

    path: Path
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def add(self, part: str, row: dict[str, Any]) -> None:
        self.rows.setdefault(part, []).append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**self.about, **self.rows}, indent=1) + "\n")
        short = ", ".join(f"{k} {v}" for k, v in row.items() if not isinstance(v, list))
        print(f"[{time.monotonic() - self.started:5.0f} s] {part}: {short}", flush=True)

    def attempt(
        self, part: str, name: str, needs: float, run: Callable[[], dict[str, Any]]
    ) -> None:
        """Add what `run` returns, or why there is nothing. `needs`: seconds it may take."""
        if self.left < needs:
            self.add(part, {"name": name, "not run": f"{self.left:.0f} s left, needs ~{needs:.0f}"})
            return
        try:
            row = run()
        except Exception as error:  # noqa: BLE001  one failed row must not lose the others
            text = str(error).strip().splitlines() or [""]
            row = {"failed": f"{type(error).__name__}: {text[0][:300]}"}
            print(f"{name}: {error}"[:3000], file=sys.stderr, flush=True)
        self.add(part, {"name": name, **row})
        free_memory()

    def markdown(self) -> str:
        """One table a part."""
        lines = []
        for part, rows in self.rows.items():
            columns = list(dict.fromkeys(k for row in rows for k in row if _is_cell(row[k])))
            lines += [f"### {part}", "", "| " + " | ".join(columns) + " |"]
            lines.append("|" + "---|" * len(columns))
            for row in rows:
                lines.append("| " + " | ".join(str(row.get(k, "")) for k in columns) + " |")
            lines.append("")
        return "\n".join(lines)


def _is_cell(value: object) -> bool:
    return not isinstance(value, list | dict)


def free_memory() -> None:
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@dataclass(frozen=True)
class Timing:
    milliseconds: float  # median
    spread: float  # (slowest - fastest) / median
    first_s: float  # the first call, compilation included
    peak_gib: float  # after the warm-up


def time_calls(
    call: Callable[[], object], *, warm_up: int = 3, seconds: float = 4.0, most: int = 30
) -> Timing:
    """Call until `seconds` have passed (five times at least), timed by the device's own events."""
    on_gpu = torch.cuda.is_available()
    start = time.monotonic()
    call()
    _wait()
    first_s = time.monotonic() - start
    for _ in range(warm_up - 1):
        call()
    _wait()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    start = time.monotonic()
    while len(times) < 5 or (time.monotonic() - start < seconds and len(times) < most):
        times.append(_event_time(call) if on_gpu else _clock_time(call))
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    middle = median(times)
    return Timing(middle, (max(times) - min(times)) / middle, first_s, peak)


def _event_time(call: Callable[[], object]) -> float:
    event: Any = torch.cuda.Event
    before, after = event(enable_timing=True), event(enable_timing=True)
    before.record()
    call()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after))


def _clock_time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, str]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": name, "torch": torch.__version__}
