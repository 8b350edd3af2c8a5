import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from modeling.data import threads
from modeling.data.threads import DaemonPool


def test_results_and_errors_come_back() -> None:
    pool = DaemonPool(2)
    futures = [pool.submit(lambda n=n: 10 // n) for n in range(4)]  # type: ignore[misc]
    assert [future.result(9) for future in futures[1:]] == [10, 5, 3]
    with pytest.raises(ZeroDivisionError):
        futures[0].result(9)
    pool.close()


def test_closing_drops_what_waits_and_lets_end_what_runs() -> None:
    pool, started, go = DaemonPool(1), threading.Event(), threading.Event()

    def run() -> str:
        started.set()
        go.wait(9)
        return "done"

    running, waiting = pool.submit(run), pool.submit(lambda: "never")
    started.wait(9)
    threading.Timer(0.05, go.set).start()
    pool.close()
    assert running.result(0) == "done"
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_a_stuck_call_does_not_stop_the_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_CLOSE_TIMEOUT_S", 0.1)
    pool, go = DaemonPool(1), threading.Event()
    pool.submit(lambda: go.wait(9))
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 5
    go.set()


def test_what_runs_at_the_end_of_a_process_ends_first() -> None:
    code = """
import atexit, time
started, ended = [], []
atexit.register(lambda: print(len(started) == len(ended) > 0))
from modeling.data.threads import DaemonPool
def call():
    started.append(1)
    time.sleep(0.3)
    ended.append(1)
pool = DaemonPool(2)
for _ in range(99):
    pool.submit(call)
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"True\n", b"")
