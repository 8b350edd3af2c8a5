"""How far a pass is: a bar on a terminal, else one JSON line every few seconds on stdout."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.engine.ledger import Ledger
from pipeline.storage import is_url


class Progress:
    """Told often, shows seldom. `output` is where free disk is measured when it is local."""

    def __init__(
        self, interval_s: float, output: str | None, stream: IO[str] | None = None
    ) -> None:
        self._interval_s = interval_s
        self._folder = _local_folder(output)
        self._stream = stream or sys.stdout
        self._bar: Bar | None = None
        self._ledger: Ledger | None = None
        self._name = ""
        self._shown_s = 0.0

    def begin(self, name: str, ledger: Ledger) -> None:
        self._name, self._ledger = name, ledger
        self._shown_s = time.monotonic()
        if self._stream.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]} failed"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._bar.add_task(name, total=ledger.num_items, failed=0)
            self._bar.start()

    def tick(self, *, num_in_flight: int) -> None:
        if time.monotonic() - self._shown_s >= self._interval_s:
            self._show(num_in_flight)

    def end(self) -> None:
        """The pass is over: its last figures are always shown."""
        self._show(0)
        self.close()

    def close(self) -> None:
        """Give the terminal back. Harmless when nothing is shown."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, num_in_flight: int) -> None:
        assert self._ledger is not None
        self._shown_s = time.monotonic()
        if self._bar is not None:
            task = self._bar.task_ids[0]
            done, failed = self._ledger.num_done, self._ledger.num_failed
            self._bar.update(task, completed=done, failed=failed)
            return
        line = _figures(self._name, self._ledger, num_in_flight, self._folder)
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


def _figures(
    name: str, ledger: Ledger, num_in_flight: int, folder: Path | None
) -> dict[str, str | int | float | None]:
    seconds = ledger.seconds
    rate = ledger.num_done / seconds if seconds > 0 else 0.0
    left = ledger.num_items - ledger.num_done
    return {
        "pass": name,
        "done": ledger.num_done,
        "total": ledger.num_items,
        "ok": ledger.num_ok,
        "failed": ledger.num_failed,
        "retries": ledger.num_retries,
        "in_flight": num_in_flight,
        "seconds": round(seconds, 1),
        "items_per_s": round(rate, 3),
        "eta_s": round(left / rate, 1) if rate > 0 else None,
        "driver_rss_mib": round(rss_bytes() / 2**20, 1),
        "free_disk_gib": _free_gib(folder),
    }


def rss_bytes() -> int:
    """Resident memory of this process. 0 where the system has no /proc."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _free_gib(folder: Path | None) -> float | None:
    if folder is None:
        return None
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return round(shutil.disk_usage(existing).free / 2**30, 2)


def _local_folder(output: str | None) -> Path | None:
    return None if output is None or is_url(output) else Path(output).absolute()
