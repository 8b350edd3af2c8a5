"""A small pool of daemon threads: a stuck read never keeps the process from ending."""

import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
_Calls = queue.SimpleQueue[Callable[[], None] | None]
_CLOSE_TIMEOUT_S = 10.0


class DaemonPool:
    """Runs calls in order of submission. Decoding leaves the interpreter lock, so threads scale.

    It closes itself before the interpreter ends: a thread that is still in native code after that
    would abort the process.
    """

    def __init__(self, num_threads: int) -> None:
        self._calls: _Calls = queue.SimpleQueue()
        self._is_closed = threading.Event()
        threads = [
            threading.Thread(
                target=_work, args=(self._calls,), name=f"loader-{number}", daemon=True
            )
            for number in range(num_threads)
        ]
        for thread in threads:
            thread.start()
        self._close = weakref.finalize(self, _close, threads, self._calls, self._is_closed)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        is_closed = self._is_closed

        def run() -> None:
            if is_closed.is_set():
                future.cancel()
                return
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is read
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return future

    def close(self) -> None:
        """Drop what waits; let what runs end, but for a call that is stuck."""
        self._close()


def _work(calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        call()


def _close(workers: Sequence[threading.Thread], calls: _Calls, is_closed: threading.Event) -> None:
    is_closed.set()
    for _ in workers:
        calls.put(None)
    deadline = time.monotonic() + _CLOSE_TIMEOUT_S
    for thread in workers:
        if thread is not threading.current_thread():  # it may hold the last reference
            thread.join(max(0.0, deadline - time.monotonic()))
